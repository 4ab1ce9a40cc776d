"""Pushes lines to Loki's push endpoint in each of its forms and prints, as JSON, what was sent.

    loki_push.py --endpoint http://HOST:PORT

Forms: JSON, JSON in gzip, and protobuf in a snappy block, each with and without structured metadata.
"""

import argparse
import gzip
import json
import sys
import time

import cramjam
import requests


def varint(n):
    out = bytearray()
    while True:
        n, low = n >> 7, n & 0x7F
        out.append(low | (0x80 if n else 0))
        if not n:
            return bytes(out)


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def integer(number, value):
    return varint(number << 3) + varint(value)


def pair(name, value):
    return field(1, name.encode()) + field(2, value.encode())


def protobuf(streams):
    """logproto.PushRequest: streams = 1 {labels = 1, entries = 2 {timestamp = 1, line = 2, metadata = 3}}."""
    body = b""
    for labels, entries in streams:
        text = "{" + ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in labels.items()) + "}"
        stream = field(1, text.encode())
        for ts_ns, line, metadata in entries:
            stamp = integer(1, ts_ns // 1_000_000_000) + integer(2, ts_ns % 1_000_000_000)
            entry = field(1, stamp) + field(2, line.encode())
            for name, value in metadata.items():
                entry += field(3, pair(name, value))
            stream += field(2, entry)
        body += field(1, stream)
    return body


def as_json(streams):
    rows = [
        {
            "stream": labels,
            "values": [[str(ts), line, metadata] if metadata else [str(ts), line] for ts, line, metadata in entries],
        }
        for labels, entries in streams
    ]
    return json.dumps({"streams": rows}).encode()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    url = parser.parse_args().endpoint + "/loki/api/v1/push"
    start_ns = time.time_ns() - 60_000_000_000
    sent = []
    for i, form in enumerate(["json", "json+gzip", "protobuf"]):
        labels = {"job": "pusher", "form": form, "quote": 'a "b"'}
        entries = []
        for n in range(200):
            line = json.dumps({"n": n, "path": f"/p/{n % 5}"}) if n % 2 else f"n={n} path=/p/{n % 5} level=warn"
            metadata = {"pod": f"pod-{n % 3}"} if n % 4 == 0 else {}
            entries.append((start_ns + i * 1_000_000_000 + n * 1_000_003, line, metadata))
        headers = {"Content-Type": "application/json"}
        if form == "protobuf":
            headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
            body = bytes(cramjam.snappy.compress_raw(protobuf([(labels, entries)])))
        else:
            body = as_json([(labels, entries)])
            if form == "json+gzip":
                headers["Content-Encoding"] = "gzip"
                body = gzip.compress(body)
        answer = requests.post(url, data=body, headers=headers, timeout=30)
        assert answer.status_code == 204, f"{form}: {answer.status_code} {answer.text}"
        sent.append(
            {
                "labels": labels,
                "entries": [{"ts_ns": ts, "line": line, "metadata": metadata} for ts, line, metadata in entries],
            }
        )
    json.dump({"streams": sent}, sys.stdout)


if __name__ == "__main__":
    main()
