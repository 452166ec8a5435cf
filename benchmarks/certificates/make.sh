#!/bin/sh
# Makes the certificate that the TLS rows serve, valid for a hundred years: sh benchmarks/certificates/make.sh
# The key protects nothing: it is for benchmarks on loopback only.
set -eu
cd "$(dirname "$0")"
DAYS=36500
key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
key ca.key
openssl req -x509 -new -key ca.key -subj '/CN=tokioloop benchmarks' -days "$DAYS" -out ca.pem \
	-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
key server.key
openssl req -new -key server.key -subj /CN=localhost | openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial \
	-days "$DAYS" -extfile /dev/fd/3 -out server.pem 3<<-END
		subjectAltName=DNS:localhost,IP:127.0.0.1
	END
rm -f ca.key ca.srl
