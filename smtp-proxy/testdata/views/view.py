"""Prints what Python's email package makes of the messages named: a JSON object for each."""
import email, json, sys

for name in sys.argv[1:]:
    with open(name, "rb") as f:
        m = email.message_from_binary_file(f)
    parts = [[p.get_content_type(), str(p.get_filename() or ""), str(p.get("Content-Transfer-Encoding", "")).strip()] for p in m.walk()]
    print(json.dumps({"fields": [[k, str(v)] for k, v in m.raw_items()], "parts": parts}, ensure_ascii=True))
