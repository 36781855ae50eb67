#!/usr/bin/env bash
# Makes the certificates with which the server proves who it is and the traffic is encrypted (TLS).
#
#     ./make_certificates.sh                              # for the names and addresses of this machine
#     ./make_certificates.sh 192.168.1.10 laptop.lan      # for these too
#
# They go to the folder certificates/:
#
#     ca.crt       the root certificate: copy it to the devices
#     ca.key       signs the server's certificates: keep it here and to yourself
#     server.pem   the server's certificate
#     server.key   its key: keep it here and to yourself
#
# Run it again when the server gets another address: the root certificate stays, the devices need nothing new.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0"; }
for word in "$@"; do
    case "$word" in
        -h | --help) usage; exit 0 ;;
        -* | "" | *[!A-Za-z0-9.:_-]*) echo "make_certificates.sh: '$word' is no name or address" >&2; usage >&2; exit 2 ;;
    esac
done

# Each name or address as OpenSSL wants it; a gRPC client that connects to an address looks for just that in the list.
alternative_names=
for name in localhost 127.0.0.1 ::1 "$(hostname)" "$(hostname).local" $(hostname -I 2>/dev/null || true) "$@"; do
    if [[ $name =~ ^[0-9.]+$ || $name == *:* ]]; then kind=IP; else kind=DNS; fi
    alternative_names+=,$kind:$name
done
alternative_names=${alternative_names#,}

# OpenSSL talks a lot; show it only when something fails.
quietly() {
    local output
    output=$("$@" 2>&1) || { echo "$output" >&2; exit 1; }
}

mkdir -p certificates
cd certificates
umask 077 # keys are for their owner only
key_type=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
if ! [ -e ca.key ]; then
    quietly openssl req -x509 "${key_type[@]}" -keyout ca.key -out ca.crt -days 3650 -subj "/CN=Federated learning on $(hostname)" \
        -addext keyUsage=critical,keyCertSign,cRLSign
fi
quietly openssl req "${key_type[@]}" -keyout server.key -out server.csr -subj "/CN=Federated learning server"
printf '%s\n' "subjectAltName=$alternative_names" basicConstraints=critical,CA:false keyUsage=critical,digitalSignature \
    extendedKeyUsage=serverAuth > extensions
quietly openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile extensions \
    -out server.pem
rm server.csr extensions
chmod 644 ca.crt server.pem
echo "certificates/server.pem is valid for ${alternative_names//,/, }"
