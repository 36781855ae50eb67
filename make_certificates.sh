#!/usr/bin/env bash
# Makes the certificates for TLS: the server proves who it is, and the traffic is encrypted. They are valid for the
# names and addresses of this machine, and for others that you give:
#
#     ./make_certificates.sh
#     ./make_certificates.sh 192.168.1.10 laptop.lan
#
# They go to the folder certificates/:
#
#     ca.crt       the root certificate: copy it to the devices
#     ca.key       signs the server's certificates: keep it here, and secret
#     server.pem   the server's certificate
#     server.key   its key: keep it here, and secret
#
# Run it again when the server's address changes: the root certificate stays, so the devices need no new file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,16s/^# \{0,1\}//p' "$0"; }
say() { echo "make_certificates.sh: $1" >&2; }
for word in "$@"; do
    case "$word" in
        -h | --help) usage; exit 0 ;;
        -* | "" | *[!A-Za-z0-9.:_-]*) say "'$word' is not a name or address"; usage >&2; exit 2 ;;
    esac
done

# The addresses of this machine that others can use. Debian's hostname knows them, ip and ifconfig print them in
# different ways, after "inet " or "inet6 ".
own_addresses() {
    PATH=$PATH:/usr/sbin:/sbin
    { hostname -I | tr ' ' '\n' | sed 's/^/inet /' || ip address || ifconfig; } 2> /dev/null |
        sed -n 's/.*inet6\{0,1\} \(addr: *\)\{0,1\}\([0-9A-Fa-f.:]\{1,\}\).*/\2/p' | grep -v -e '^127\.' -e '^::1$' -e '^fe80:'
}
addresses=$(own_addresses) || [ $# -gt 0 ] || say "found no address of this machine: to include it, give it: $0 192.168.1.10"

name=$(uname -n)
case "$name" in
    "" | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) say "left out the name '$name': a certificate cannot contain it"; own_names=() ;;
    *) own_names=("$name" "${name%%.*}.local") ;;
esac

# Each name or address as OpenSSL wants it; a gRPC client that connects to an address looks for just that in the list.
alternative_names=DNS:localhost,IP:127.0.0.1,IP:::1
for name in ${own_names[@]+"${own_names[@]}"} $addresses "$@"; do
    if [[ $name =~ ^[0-9]+(\.[0-9]+){3}$ || $name == *:* ]]; then kind=IP; else kind=DNS; fi
    alternative_names+=,$kind:$name
done

# OpenSSL talks a lot; show it only when something fails.
quietly() {
    local output
    output=$("$@" 2>&1) || { echo "$output" >&2; exit 1; }
}
make_key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out "$1"; }

mkdir -p certificates
umask 077 # keys are for their owner only
new=$PWD/certificates/new
rm -rf "$new"
mkdir "$new"
trap 'rm -rf "$new"' EXIT
cd certificates
for name in ca.key ca.crt server.key; do
    [ ! -s $name ] || cp -p $name "$new"
done
cd "$new"
if [ -e ca.crt ] && [ ! -e ca.key ]; then
    say "certificates/ca.key, which belongs to ca.crt, is missing: restore it, or delete ca.crt and give the devices a new one"
    exit 1
fi
[ -e ca.key ] || make_key ca.key
[ -e ca.crt ] || quietly openssl req -x509 -new -key ca.key -out ca.crt -days 3650 -subj "/CN=Federated learning" \
    -addext keyUsage=critical,keyCertSign,cRLSign
[ -e server.key ] || make_key server.key
quietly openssl req -new -key server.key -out server.csr -subj "/CN=Federated learning server"
printf '%s\n' "subjectAltName=$alternative_names" basicConstraints=critical,CA:false keyUsage=critical,digitalSignature \
    extendedKeyUsage=serverAuth > extensions
quietly openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile extensions \
    -out server.pem
quietly openssl verify -CAfile ca.crt server.pem # on a full disk, OpenSSL writes empty files and says nothing
chmod 644 ca.crt server.pem
# Only now, keys first: if anything fails before, the old files still work, and the next run continues from there.
mv -f ca.key ca.crt server.key server.pem ..
echo "certificates/server.pem is valid for ${alternative_names//,/, }"
