#!/bin/sh
# Makes the certificates that the tests use, valid for a hundred years: sh tests/certificates/make.sh
# The keys protect nothing: they are for tests on loopback only.
set -eu
cd "$(dirname "$0")"
DAYS=36500
key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
# name, common name, extensions
issue() {
	key "$1.key"
	openssl req -new -key "$1.key" -subj "/CN=$2" | openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial \
		-days "$DAYS" -extfile /dev/fd/3 -out "$1.pem" 3<<-END
			$3
		END
}
authority() {
	key "$1.key"
	openssl req -x509 -new -key "$1.key" -subj "/CN=$2" -days "$DAYS" -out "$1.pem" \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}
authority ca 'tokioloop tests'
authority stranger 'an authority that nobody trusts'
issue server localhost 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1'
issue other other.example 'subjectAltName=DNS:other.example'
issue client 'a client' 'extendedKeyUsage=clientAuth'
DAYS=0 issue expired localhost 'subjectAltName=DNS:localhost,IP:127.0.0.1'
rm -f ca.key ca.srl stranger.key
