# Seals a message again and again with dkimpy, and prints it:
#	arc.py seal KEYFILE DOMAIN...
# or says what dkimpy finds of the chains in files:
#	arc.py verify RECORD FILE...
import sys
import dkim

def seal(key, domains):
    message = sys.stdin.buffer.read()
    for i, domain in enumerate(domains):
        message = b"Authentication-Results: " + domain + b"; spf=pass smtp.mailfrom=a@example.org;\r\n\tdmarc=pass (p=REJECT) header.from=example.org" + (
            b";\r\n\tarc=pass" if i else b"") + b"\r\n" + message
        lines = dkim.arc_sign(message, b"s", domain, key, domain, timestamp=1700000000,
                              include_headers=[b"from", b"subject", b"to", b"mime-version"])
        message = b"".join(lines) + message
        message = b"Received: from x\r\n by " + domain + b"; Sat, 28 Nov 2026 00:00:00 +0000\r\n" + message
    sys.stdout.buffer.write(message)

def verify(record, files):
    for name in files:
        with open(name, "rb") as f:
            result = dkim.arc_verify(f.read(), dnsfunc=lambda name, timeout=5: record)
        print(result[0].decode())

if sys.argv[1] == "seal":
    seal(open(sys.argv[2], "rb").read(), [d.encode() for d in sys.argv[3:]])
else:
    verify(sys.argv[2].encode(), sys.argv[3:])
