#!/usr/bin/python3
"""A filter worker in Python, as postern-filter(7) describes them: refuses recipients
called "nobody" and messages about lotteries, and adds a field to the others.
A multiplexor starts it: worker /usr/local/libexec/filter.py
"""
import os
import re
import sys


def encode(text):
    """Returns text as a word of an answer or of RESULTS."""
    return "".join(
        chr(b) if 0x20 < b < 0x7F and b not in b"%\\'\"" else f"%{b:02X}"
        for b in text.encode(errors="surrogateescape")
    )


def decode(word):
    """Returns the text that a word stands for."""
    data = word.encode(errors="surrogateescape")
    data = re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m[1], 16)]), data)
    return data.decode(errors="surrogateescape")


def scan(directory):
    """Judges a message: reads what is known of it, and writes what is to be done."""
    client, subject = "unknown", ""
    with open(os.path.join(directory, "COMMANDS"), errors="surrogateescape", newline="\n") as commands:
        for line in commands:
            letter, argument = line[:1], decode(line[1:].rstrip("\n"))
            if letter == "F":
                break
            if letter == "I":
                client = argument
            if letter == "U":
                subject = argument
    if "lottery" in subject.lower():
        verdict = "B554 5.7.1 " + encode("no thanks: " + subject)
    else:
        verdict = "HX-Seen " + encode("by a filter, 100%, from " + client)
    # One write, so that a worker that is killed leaves no half of it.
    with open(os.path.join(directory, "RESULTS"), "a", newline="\n") as results:
        results.write(verdict + "\nF\n")
    return "ok"


def answer(line):
    """Returns the answer to a request."""
    verb, *words = [decode(word) for word in line.split()] or [""]
    verb = verb.lower()
    if verb == "ping":
        return "PONG"
    if verb == "scan":
        return scan(words[1])
    if verb == "recipok" and words[0].startswith("<nobody@"):
        return "ok 0 " + encode("no such user: " + words[0]) + " 550 5.1.1"
    if verb in ("relayok", "helook", "senderok", "recipok"):
        return "ok 1"
    return "error: Unknown command"


requests = open(0, errors="surrogateescape", newline="\n")
for request in requests:
    try:
        print(answer(request), flush=True)
    except (OSError, IndexError) as error:
        print(error, file=sys.stderr)
        print("error: cannot scan", flush=True)
