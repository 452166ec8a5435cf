#!/bin/sh
# Makes the certificates that the tests use, valid for a hundred years: sh tests/certificates/make.sh
# The keys protect nothing: they are for tests on loopback only.
set -eu
cd "$(dirname "$0")"
DAYS=36500
key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
# name, common name, extensions, by whom
issue() {
	key "$1.key"
	openssl req -new -key "$1.key" -subj "/CN=$2" | openssl x509 -req -CA "${4:-ca}.pem" \
		-CAkey "${4:-ca}.key" -CAcreateserial \
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

# An authority with a list of what it has revoked.
authority revoker 'an authority that revokes'
issue revoked localhost 'subjectAltName=DNS:localhost' revoker
issue standing localhost 'subjectAltName=DNS:localhost' revoker
: >index.txt
cat >revoker.cnf <<-END
	[ca]
	default_ca = revoker
	[revoker]
	database = index.txt
	crlnumber = crlnumber
	default_md = sha256
	default_crl_days = $DAYS
	END
echo 01 >crlnumber
revoker() { openssl ca -config revoker.cnf -cert revoker.pem -keyfile revoker.key "$@"; }
revoker -revoke revoked.pem
revoker -gencrl -out revoker.crl
rm -f *.srl ca.key stranger.key revoker.key revoker.cnf index.txt* crlnumber*
