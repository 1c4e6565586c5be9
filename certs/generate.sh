#!/usr/bin/env bash
# Makes the certificates that the tests need, good and bad ones, with plain `openssl` (3.0 is enough).
#
#   certs/generate.sh OUTDIR        makes them, or leaves them alone when they are there and recent
#   certs/generate.sh --list        says what it would make
#
# Nothing made here is committed: certificates age, and a test that passes only until March is a bad test.
# Each NAME becomes OUTDIR/NAME.pem (the leaf), NAME.key (0600), NAME.chain.pem (what a server sends: the leaf and
# the intermediates above it) and one line of OUTDIR/MANIFEST.tsv.
set -euo pipefail

# name|key|signed by|CA|extended key usage|names|valid
#   key        p256 or rsa2048
#   signed by  self, or the name of an earlier line
#   CA         CA:TRUE as an authority (or as Tomcat makes its own certificate), CA:FALSE, or -, no such extension
#   EKU        both, client, server, or - for none
#   names      subject alternative names, or -
#   valid      now, past or future
TABLE='
corp-ca|p256|self|CA:TRUE|-|-|now
other-ca|p256|self|CA:TRUE|-|-|now
corp-intermediate|p256|corp-ca|CA:TRUE|-|-|now

corp-a|p256|corp-ca|CA:FALSE|both|DNS:node1.a.test|now
corp-b|p256|corp-ca|CA:FALSE|both|DNS:node1.b.test|now
corp-c|p256|corp-ca|CA:FALSE|both|DNS:node1.c.test|now
corp-rsa-a|rsa2048|corp-ca|CA:FALSE|both|DNS:node1.a.test|now
corp-no-eku-a|p256|corp-ca|CA:FALSE|-|DNS:node1.a.test|now
corp-ip-a|p256|corp-ca|CA:FALSE|both|IP:127.0.0.1|now
corp-wildcard-a|p256|corp-ca|CA:FALSE|both|DNS:*.a.test|now
corp-below-a|p256|corp-intermediate|CA:FALSE|both|DNS:node1.a.test|now
corp-expired-a|p256|corp-ca|CA:FALSE|both|DNS:node1.a.test|past
corp-future-a|p256|corp-ca|CA:FALSE|both|DNS:node1.a.test|future
corp-client-a|p256|corp-ca|CA:FALSE|client|DNS:node1.a.test|now
corp-server-a|p256|corp-ca|CA:FALSE|server|DNS:node1.a.test|now
corp-wrong-name-a|p256|corp-ca|CA:FALSE|both|DNS:node1.elsewhere.test|now
corp-no-name-a|p256|corp-ca|CA:FALSE|both|-|now
other-a|p256|other-ca|CA:FALSE|both|DNS:node1.a.test|now

tomcat-a|rsa2048|self|CA:TRUE|both|DNS:node1.a.test|now
tomcat-b|rsa2048|self|CA:TRUE|both|DNS:node1.b.test|now
tomcat-p256-a|p256|self|CA:TRUE|both|DNS:node1.a.test|now
tomcat-expired-a|p256|self|CA:TRUE|both|DNS:node1.a.test|past
tomcat-future-a|p256|self|CA:TRUE|both|DNS:node1.a.test|future
tomcat-client-a|p256|self|CA:TRUE|client|DNS:node1.a.test|now
tomcat-server-a|p256|self|CA:TRUE|server|DNS:node1.a.test|now
minted-by-tomcat-a|p256|tomcat-p256-a|CA:FALSE|both|DNS:node1.a.test|now

plain-a|p256|self|CA:FALSE|both|DNS:node1.a.test|now
plain-b|p256|self|CA:FALSE|both|DNS:node1.b.test|now
plain-bare-a|p256|self|-|-|-|now
'

# Made again after this long, well before the good ones (30 days) end.
RECENT_DAYS=7

fail() { echo "certs/generate.sh: $*" >&2; exit 1; }

case "${1:-}" in
    --list) grep -v '^$' <<<"$TABLE" | column -t -s'|' 2>/dev/null || grep -v '^$' <<<"$TABLE"; exit 0 ;;
    ''|-*) echo "usage: certs/generate.sh OUTDIR | --list" >&2; exit 2 ;;
esac
command -v openssl >/dev/null || fail "openssl is missing; on Debian: apt-get install openssl"
case "$(openssl version)" in
    'OpenSSL '[3-9].*) ;;
    *) fail "OpenSSL 3 or later is needed, this is $(openssl version)" ;;
esac

mkdir -p "$1"
out=$(cd "$1" && pwd)
self=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")
made_by=$(openssl dgst -sha256 -r "$self" | cut -d' ' -f1)

# Several test programs may ask for the same folder at once: one makes it, the others find it made.
exec 9>"$out/.lock"
flock 9
if [ "$(cat "$out/.made-by" 2>/dev/null)" = "$made_by" ] &&
    [ -z "$(find "$out/.made-by" -mtime +$((RECENT_DAYS - 1)))" ]; then
    exit 0
fi

umask 077
work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# `openssl x509` of 3.0 can't set the beginning of a validity; `openssl ca` can, also for a self-signature. It wants
# a database, which is thrown away.
stamp() { date -u -d "$1" +%Y%m%d%H%M%SZ; }
make_one() {
    local name=$1 key=$2 signer=$3 ca=$4 eku=$5 names=$6 valid=$7
    local from till usage
    case $valid in
        now) from=$(stamp '-1 day') till=$(stamp '+30 days') ;;
        past) from=$(stamp '-60 days') till=$(stamp '-30 days') ;;
        future) from=$(stamp '+300 days') till=$(stamp '+330 days') ;;
        *) fail "$name: valid is $valid" ;;
    esac
    case $key in
        p256) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$name.key" ;;
        rsa2048) openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$work/$name.key" ;;
        *) fail "$name: key is $key" ;;
    esac 2>/dev/null
    usage=digitalSignature
    [ "$key" = rsa2048 ] && usage+=,keyEncipherment
    [ "$ca" = CA:TRUE ] && usage+=,keyCertSign,cRLSign

    {
        echo "subjectKeyIdentifier = hash"
        [ "$ca" = - ] || echo "basicConstraints = critical,$ca"
        # A certificate with no extension that says anything is one of the cases: plain-bare-a.
        [ "$ca" = - ] || echo "keyUsage = critical,$usage"
        case $eku in
            both) echo "extendedKeyUsage = serverAuth,clientAuth" ;;
            client) echo "extendedKeyUsage = clientAuth" ;;
            server) echo "extendedKeyUsage = serverAuth" ;;
            -) ;;
            *) fail "$name: extended key usage is $eku" ;;
        esac
        [ "$signer" = self ] || echo "authorityKeyIdentifier = keyid"
        [ "$names" = - ] || echo "subjectAltName = $names"
    } >"$work/ext"
    cat >"$work/ca.cnf" <<CNF
[ca]
default_ca = one
[one]
database = $work/db
rand_serial = yes
new_certs_dir = $work
default_md = sha256
policy = any
unique_subject = no
[any]
organizationName = optional
commonName = supplied
[req]
distinguished_name = none
prompt = no
[none]
CNF
    : >"$work/db"
    openssl req -new -config "$work/ca.cnf" -key "$work/$name.key" \
        -subj "/O=emccd tests/CN=$name" -out "$work/csr"
    local by=(-selfsign -keyfile "$work/$name.key")
    [ "$signer" = self ] || by=(-cert "$work/$signer.pem" -keyfile "$work/$signer.key")
    openssl ca -batch -notext -preserveDN -config "$work/ca.cnf" "${by[@]}" -in "$work/csr" \
        -extfile "$work/ext" -startdate "$from" -enddate "$till" -out "$work/$name.pem" \
        2>"$work/openssl.err" || { cat "$work/openssl.err" >&2; fail "$name could not be made"; }

    cat "$work/$name.pem" >"$work/$name.chain.pem"
    # A server sends the intermediates, not the root.
    if [ "$signer" != self ] && [ "${signer_of[$signer]}" != self ]; then
        cat "$work/$signer.chain.pem" >>"$work/$name.chain.pem"
    fi
    signer_of[$name]=$signer
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$key" "$signer" "$ca" "$eku" "$names" "$valid" \
        "$(openssl x509 -in "$work/$name.pem" -noout -fingerprint -sha256 | cut -d= -f2)" >>"$work/MANIFEST.tsv"
}

declare -A signer_of
printf 'name\tkey\tsigned_by\tca\teku\tnames\tvalid\tsha256\n' >"$work/MANIFEST.tsv"
while IFS='|' read -r name key signer ca eku names valid; do
    [ -n "$name" ] && make_one "$name" "$key" "$signer" "$ca" "$eku" "$names" "$valid"
done <<<"$TABLE"

# The stamp goes last: a run that was ended half-way is repeated.
rm -f "$out/.made-by"
mv -f "$work"/*.key "$work"/*.pem "$work/MANIFEST.tsv" "$out/"
# `openssl ca` also leaves each certificate under its serial number.
rm -f "$out"/[0-9A-F][0-9A-F][0-9A-F][0-9A-F]*.pem
echo "$made_by" >"$out/.made-by"
