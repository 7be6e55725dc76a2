"""Opens every golden file using only docs/format.md, which proves that the document is complete.

Run by scripts/check-format. It shares no code with encx: if the two disagree, one of them or the document is wrong.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import unicodedata
import uuid
from contextlib import closing
from pathlib import Path

from argon2.low_level import Type, core, ffi, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.cmac import CMAC

ROOT = Path(__file__).resolve().parent.parent


class Refused(Exception):
    """The name of a refusal, as in the document's table."""


def refuse_unless(condition, name):
    if not condition:
        raise Refused(name)


# --- Conventions ---


def u16(number):
    return number.to_bytes(2, "big")


def u32(number):
    return number.to_bytes(4, "big")


class Reader:
    def __init__(self, data, refusal):
        self.data, self.at, self.refusal = data, 0, refusal

    def take(self, length):
        refuse_unless(length <= len(self.data) - self.at, self.refusal)
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def bounded(self, length, least, most):
        number = self.number(length)
        refuse_unless(least <= number <= most, self.refusal)
        return number

    def name(self, least, most):
        try:
            name = self.take(self.bounded(2, least, most)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused(self.refusal) from error
        refuse_unless(not any(map(is_control, name)), self.refusal)
        return name

    def finish(self):
        refuse_unless(self.at == len(self.data), self.refusal)


def is_control(scalar):
    return ord(scalar) <= 0x1F or 0x7F <= ord(scalar) <= 0x9F


def xor(left, right):
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


# --- KC-XAES-256-GCM ---


class WrongCommitment(Exception):
    pass


class WrongTag(Exception):
    pass


class TooShort(Exception):
    pass


class Xaes:
    def __init__(self, key):
        self.key = key
        zero = self.block(bytes(16))
        doubled = bytearray(((int.from_bytes(zero, "big") << 1) & (2**128 - 1)).to_bytes(16, "big"))
        if zero[0] & 0x80:
            doubled[15] ^= 0x87
        self.k1 = bytes(doubled)

    def block(self, block):
        encryptor = Cipher(algorithms.AES(self.key), modes.ECB()).encryptor()
        return encryptor.update(block) + encryptor.finalize()

    def message_key(self, nonce):
        blocks = (bytes([0, number, 0x58, 0]) + nonce[:12] for number in (1, 2))
        return b"".join(self.block(xor(block, self.k1)) for block in blocks)

    def commitment(self, nonce):
        halves = []
        for number in (1, 2):
            mac = CMAC(algorithms.AES(self.key))
            mac.update(b"XCMT" + nonce + bytes([0, 1, 0, number]))
            halves.append(mac.finalize())
        return b"".join(halves)

    def commitment_written_out(self, nonce):
        chain = self.block(b"XCMT" + nonce[:12])
        lasts = (nonce[12:] + bytes([0, 1, 0, number]) for number in (1, 2))
        return b"".join(self.block(xor(xor(last, chain), self.k1)) for last in lasts)

    def encrypt(self, nonce, plaintext, aad):
        return AESGCM(self.message_key(nonce)).encrypt(nonce[12:], plaintext, aad)

    def open(self, sealed, aad, committed=True):
        if len(sealed) < (72 if committed else 40):
            raise TooShort
        nonce, rest = sealed[:24], sealed[24:]
        if committed:
            rest, commitment = rest[:-32], rest[-32:]
            if not hmac.compare_digest(commitment, self.commitment(nonce)):
                raise WrongCommitment
        try:
            return AESGCM(self.message_key(nonce)).decrypt(nonce[12:], rest, aad)
        except InvalidTag as error:
            raise WrongTag from error


# --- Encryption context and scope ---

USAGES = {"data": 1, "stream": 2, "index": 3, "pepper": 4}


def fold(key):
    # Scalar by scalar: Python's `lower` of a whole text considers a sigma's neighbours.
    upper = "".join(scalar.upper() for scalar in key)
    return "".join(scalar.lower() for scalar in upper)


def frame_pairs(pairs):
    encoded = sorted((key.encode(), value.encode()) for key, value in pairs)
    framed = [u16(len(text)) + text for pair in encoded for text in pair]
    return u16(len(encoded)) + b"".join(framed)


def canonical_context(pairs):
    refuse_unless(1 <= len(pairs) <= 8, "context")
    for text in (text for pair in pairs for text in pair):
        refuse_unless(1 <= len(text) <= 384 and not any(map(is_control, text)), "context")
    folded = [fold(key) for key, _ in pairs]
    refuse_unless(len(set(folded)) == len(folded), "context")
    refuse_unless(not any(key.startswith("encx:") for key in folded), "context")
    return frame_pairs(pairs)


def scope_of(pairs, usage):
    return hashlib.sha256(b"encx/scope/v1" + bytes([USAGES[usage]]) + canonical_context(pairs)).digest()


# --- AAD ---

BYTES, TEXT, INTEGER, UUID, STEP, BOUND, NULL = range(7)


def typed_part(part):
    ((kind, value),) = part.items()
    if kind == "bytes":
        return BYTES, bytes.fromhex(value)
    if kind == "text":
        return TEXT, value.encode()
    if kind == "uuid":
        return UUID, uuid.UUID(value).bytes
    integer = int(value)
    refuse_unless(-(2**127) <= integer < 2**127, "aad")
    return INTEGER, integer.to_bytes(16, "big", signed=True)


def framed_aad(place):
    if place["kind"] == "unbound":
        kind, parts = 0, []
    elif place["kind"] == "free":
        kind, parts = 1, [typed_part(part) for part in place["parts"]]
    else:
        names = [(TEXT, place[name].encode()) for name in ("table", "column")]
        row = [typed_part(part) for part in place["row"]]
        path = [(STEP, step.encode()) for step in place.get("path", [])]
        refuse_unless(row, "aad")
        kind, parts = 2, names + row + path
        refuse_unless(all(content for _, content in parts), "aad")
        for column, value in place.get("bound", []):
            parts += [(BOUND, column.encode()), (NULL, b"") if value is None else typed_part(value)]
    refuse_unless(len(parts) <= 64, "aad")
    framed = bytes([kind]) + u16(len(parts))
    framed += b"".join(bytes([type_]) + u32(len(content)) + content for type_, content in parts)
    refuse_unless(len(framed) <= 65536, "aad")
    return framed


# --- Blind index ---

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def frame(kind, parts):
    framed = [bytes([type_]) + u32(len(content)) + content for type_, content in parts]
    return bytes([kind]) + u16(len(parts)) + b"".join(framed)


def hkdf(key, info):
    return hmac.digest(hmac.digest(bytes(32), key, "sha256"), info + b"\1", "sha256")


def lowercase(text):
    return "".join(scalar.lower() for scalar in text)


def nfkc(text):
    return unicodedata.normalize("NFKC", text)


def normalized_now(normalizer, text):
    """Returns a text in the normalizer's current version, and the version of its index."""
    first = normalized(normalizer, text)
    if normalizer not in ("lowercase", "email"):
        return first, 1
    second = first.replace("\u03c2", "\u03c3")
    return second, 2 if "\u03c3" in second else 1


def normalized(normalizer, text):
    """Returns a text in version 1 of the normalizer."""
    if normalizer == "exact":
        return text
    if normalizer == "trim":
        return text.strip(WHITE_SPACE)
    if normalizer == "lowercase":
        return lowercase(text.strip(WHITE_SPACE))
    if normalizer == "case-fold":
        return nfkc(nfkc(text).casefold()).strip(WHITE_SPACE)
    if normalizer == "email":
        return nfkc(lowercase(nfkc(text).strip(WHITE_SPACE)))
    assert normalizer == "phone"
    return re.sub(f"[-./()\u2010-\u2015\u2212{WHITE_SPACE}]", "", nfkc(text))


def blind_index(key, key_id, index, values):
    """Returns the info from which k is derived, k, and the blind index."""
    names, parts = [], []
    for column, value in zip(index["columns"], values, strict=True):
        (type_, content), version = typed_part(value), 1
        if type_ == TEXT:
            content, version = normalized_now(column["normalizer"], value["text"])
            content = content.encode()
        parts.append((type_, content))
        of_column = [(TEXT, column["name"].encode()), (TEXT, column["normalizer"].encode())]
        of_column.append((INTEGER, column.get("version", version).to_bytes(16, "big")))
        if not names:
            of_column.insert(1, (TEXT, index.get("name", "").encode()))
        names += of_column
    bits = index["bits"]
    info = b"encx/index/v1" + frame(3, [(TEXT, index["table"].encode()), *names]) + u16(bits)
    message = parts[0][1] if len(parts) == 1 else frame(4, parts)
    k = hkdf(key, info)
    kept = bytearray(hmac.digest(k, message, "sha256")[: -(-bits // 8)])
    kept[-1] &= 0xFF << (-bits % 8) & 0xFF
    return info, k, key_id[12:] + kept


# --- Password hash ---


def argon2id(password, salt, secret, memory, passes, lanes, data=b"", length=32):
    output = ffi.new("uint8_t[]", length)
    fields = {"version": 0x13, "out": output, "outlen": length, "m_cost": memory, "t_cost": passes}
    fields |= {"lanes": lanes, "threads": 1, "allocate_cbk": ffi.NULL, "free_cbk": ffi.NULL, "flags": 0}
    # The structure does not keep them alive.
    kept = [ffi.new("uint8_t[]", value) for value in (password, salt, secret, data)]
    for name, value, buffer in zip(("pwd", "salt", "secret", "ad"), (password, salt, secret, data), kept, strict=True):
        fields |= {name: buffer, f"{name}len": len(value)}
    assert core(ffi.new("argon2_context *", fields), Type.ID.value) == 0
    return bytes(ffi.buffer(output, length))


def password_hash(key, key_id, place, password, salt, memory, passes, lanes):
    """Returns the pepper, the hash, and the text."""
    pepper = hkdf(key, b"encx/pepper/v1" + framed_aad(place))
    output = argon2id(password, salt, pepper, memory, passes, lanes)
    id_, salt, last = str(uuid.UUID(bytes=key_id)), *(base64.b64encode(part).decode().rstrip("=") for part in (salt, output))
    return pepper, output, f"$encx$v=1,k={id_}$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${last}"


# --- Ciphertext ---


class Ciphertext:
    def __init__(self, data):
        refuse_unless(len(data) >= 1, "too-short")
        refuse_unless(data[0] == 1, "unknown-version")
        refuse_unless(len(data) >= 2, "too-short")
        refuse_unless(data[1] in (1, 2), "unknown-suite")
        refuse_unless(len(data) >= 18, "too-short")
        refuse_unless(data[8] >> 4 == 7 and data[10] >> 6 == 0b10, "bad-key-id")
        self.committed = data[1] == 1
        overhead = 90 if self.committed else 58
        refuse_unless(len(data) >= overhead, "too-short")
        refuse_unless(len(data) <= overhead + 64 * 1024 * 1024, "too-long")
        self.header, self.key_id, self.sealed = data[:18], data[2:18], data[18:]

    def open(self, data_key, scope, aad):
        try:
            return Xaes(data_key).open(self.sealed, self.header + scope + aad, self.committed)
        except (WrongCommitment, WrongTag) as error:
            raise Refused("decrypt") from error


# --- Data keys, KMS context, local wrap ---


def key_check(data_key, key_id):
    return hmac.digest(data_key, b"encx/check/v1" + key_id, "sha256")


def kms_context(pairs, usage, key_id):
    own = [("encx:key", str(uuid.UUID(bytes=key_id))), ("encx:usage", usage), ("encx:v", "1")]
    return frame_pairs(list(pairs) + own)


def unwrap(keks, kek_id, wrap, framed_context):
    kek = next((kek for kek in keks if kek["id"] == kek_id), None)
    refuse_unless(kek, "kek-unknown")
    refuse_unless(kek["enabled"], "kek-disabled")
    refuse_unless(len(wrap) == 121 and wrap[0] == 1, "wrap")
    material = kek["keys"].get(str(uuid.UUID(bytes=wrap[1:17])))
    refuse_unless(material, "wrap")
    name = kek_id.encode()
    aad = b"encx/local-wrap/v1" + wrap[:17] + u16(len(name)) + name + framed_context
    try:
        return Xaes(material).open(wrap[17:], aad)
    except (WrongCommitment, WrongTag) as error:
        raise Refused("wrap") from error


# --- Local KEK file ---


def key_from_text(text):
    text = text.strip()
    try:
        if len(text) == 64:
            return binascii.unhexlify(text)
        refuse_unless(len(text) in (43, 44), "key-text")
        alphabet = b"-_" if re.search("[-_]", text) else b"+/"
        key = base64.b64decode(text.rstrip("=") + "=", altchars=alphabet, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("key-text") from error
    # Another text of the same key would not have zero bits in its last digit.
    refuse_unless(base64.b64encode(key, alphabet).decode().rstrip("=") == text.rstrip("="), "key-text")
    refuse_unless(len(key) == 32, "key-text")
    return key


def open_kek_file(path, protection):
    """Returns the KEKs as the manifest lists them, and each material's key."""
    status = os.stat(path)
    refuse_unless(status.st_uid in (os.geteuid(), 0), "owner")
    refuse_unless(status.st_mode & 0o077 == 0, "permissions")
    refuse_unless(status.st_size <= 16 * 1024 * 1024, "too-large")
    data = Path(path).read_bytes()
    refuse_unless(data.startswith(b"encx-kek"), "corrupt")
    refuse_unless(len(data) >= 32 and hashlib.sha256(data[:-32]).digest() == data[-32:], "corrupt")
    reader = Reader(data[:-32], "corrupt")
    reader.take(8)
    refuse_unless(reader.number(1) == 1, "unsupported-version")
    protected_by = reader.number(1)
    if protected_by == 1:
        memory, passes = reader.bounded(4, 128, 1048576), reader.bounded(4, 1, 16)
        lanes, salt = reader.bounded(4, 1, 16), reader.take(16)
    elif protected_by == 2:
        reader.take(16)
    else:
        refuse_unless(protected_by == 3, "corrupt")
        own_key = reader.take(32)
    header = reader.data[: reader.at]
    sealed = reader.take(reader.number(4))
    reader.finish()

    wrong = "corrupt"
    if protected_by == 1 and "passphrase" in protection:
        secret = protection["passphrase"].encode()
        refuse_unless(secret, "key-text")
        key = hash_secret_raw(secret, salt, passes, memory, lanes, 32, Type.ID, version=0x13)
        wrong = "wrong-passphrase"
    elif protected_by == 2 and "key" in protection:
        key = key_from_text(protection["key"])
        wrong = "wrong-key"
    elif protected_by == 3 and protection == "file_permissions":
        key = own_key
    else:
        raise Refused("protection")
    try:
        body = Xaes(key).open(sealed, header)
    except WrongCommitment as error:
        raise Refused(wrong) from error
    except (WrongTag, TooShort) as error:
        raise Refused("corrupt") from error
    return parse_body(body)


def is_alias(name):
    return name.startswith("alias/") and 7 <= len(name.encode()) <= 256


def parse_body(body):
    reader = Reader(body, "corrupt")
    keks = []
    for _ in range(reader.bounded(2, 1, 1000)):
        kek = {"id": reader.name(1, 2048), "enabled": reader.bounded(1, 1, 2) == 1}
        refuse_unless(not is_alias(kek["id"]), "corrupt")
        kek |= {"default": False, "aliases": [], "keys": {}}
        count = reader.bounded(2, 1, 1000)
        for _ in range(count):
            material = str(uuid.UUID(bytes=reader.take(16)))
            kek["keys"][material] = reader.take(32)
        refuse_unless(len(kek["keys"]) == count, "corrupt")
        kek["materials"] = list(kek["keys"])
        keks.append(kek)
    refuse_unless(len({kek["id"] for kek in keks}) == len(keks), "corrupt")
    keks[reader.bounded(2, 0, len(keks) - 1)]["default"] = True
    last = b""
    for _ in range(reader.bounded(2, 0, 1000)):
        alias = reader.name(7, 256)
        refuse_unless(is_alias(alias) and alias.encode() > last, "corrupt")
        last = alias.encode()
        keks[reader.bounded(2, 0, len(keks) - 1)]["aliases"].append(alias)
    reader.finish()
    return keks


# --- From a row to a plaintext ---


class Database:
    def __init__(self, path, sql=None):
        with closing(sqlite3.connect(path)) as connection:
            if sql:
                # The schema's checks call it, and SQLite has it only since 3.43.
                length = lambda value: value if value is None else len(str(value).encode())  # noqa: E731
                connection.create_function("octet_length", 1, length, deterministic=True)
                assert connection.execute(sql).rowcount >= 1, "the change changes a row"
                connection.commit()
            (version,) = connection.execute("SELECT max(version) FROM encx_migrations").fetchone()
            assert version in (1, 2, 3), "the tables' version"
            columns = "id, scope, usage, version, state, suspended_from, context, key_check"
            names = columns.split(", ")
            rows = connection.execute(f"SELECT {columns} FROM encx_data_keys").fetchall()
            self.keys = [dict(zip(names, row, strict=True)) for row in rows]
            self.wraps = connection.execute(
                "SELECT key_id, kms, kek, ciphertext, kek_material FROM encx_wrapped_keys"
            ).fetchall()

    def of_scope(self, context, usage):
        scope = scope_of(context, usage)
        rows = [key for key in self.keys if key["scope"] == scope]
        for row in rows:
            same = row["usage"] == USAGES[usage] and json.loads(row["context"]) == dict(context)
            refuse_unless(same, "row-edited")
        return rows

    def data_key(self, context, usage, key_id, allowed, accept):
        row = next((row for row in self.of_scope(context, usage) if row["id"] == key_id), None)
        refuse_unless(row, "unknown-key")
        if row["state"] not in ("pre-active", "active", "deactivated"):
            refuse_unless(row["state"] == "compromised" and "compromised" in accept, row["state"])
        framed = kms_context(context, usage, key_id)
        refusal = None
        for of, kms, kek, wrap, _ in self.wraps:
            if of != key_id or kek not in {kek["id"] for kek in allowed.get(kms, [])}:
                continue
            try:
                data_key = unwrap(allowed[kms], kek, wrap, framed)
                check = key_check(data_key, key_id)
                refuse_unless(hmac.compare_digest(check, row["key_check"]), "key-mismatch")
                return data_key
            except Refused as error:
                refusal = refusal or error
        raise refusal or Refused("kek-not-allowed")


def decrypt(data, context, place, database, allowed, accept):
    scope, aad = scope_of(context, "data"), framed_aad(place)
    ciphertext = Ciphertext(data)
    refuse_unless(ciphertext.committed or "uncommitted" in accept, "suite-not-accepted")
    data_key = database.data_key(context, "data", ciphertext.key_id, allowed, accept)
    return ciphertext.open(data_key, scope, aad)


# --- The checks ---


class Checks:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def equal(self, what, found, expected):
        if found == expected:
            self.passed += 1
            return
        self.failed += 1
        print(f"FAILED {what}: found {shorten(found)}, expected {shorten(expected)}", file=sys.stderr)

    def case(self, what, expect, attempt):
        """Runs an attempt and compares its result with the manifest."""
        try:
            found = {"opens_to": attempt()}
        except Refused as error:
            found = {"refused_as": str(error)}
        self.equal(what, found, expect)


def shorten(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def changed(data, change, mend_checksum=False):
    data = bytearray(data)
    if change:
        ((kind, value),) = change.items()
        if kind == "append":
            data.append(value)
        elif kind == "extend":
            data.extend(bytes(value - len(data)))
        elif kind == "flip_bit":
            data[value // 8] ^= 1 << value % 8
        elif kind == "keep":
            del data[value:]
        elif kind == "set":
            data[value["at"]] = value["to"]
        else:
            raise ValueError(kind)
    if mend_checksum:
        data[-32:] = hashlib.sha256(data[:-32]).digest()
    return bytes(data)


def content_of(content):
    ((kind, value),) = content.items()
    if kind == "text":
        return value.encode()
    return bytes.fromhex(value) if kind == "hex" else bytes(at % 251 for at in range(value))


def public(keks):
    return [{name: value for name, value in kek.items() if name != "keys"} for kek in keks]


class Release:
    def __init__(self, folder, scratch, checks):
        self.folder, self.scratch, self.checks = folder, scratch, checks
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.keks = {}
        self.seen = {"manifest.json"}
        self.databases = {}

    def read(self, name):
        self.seen.add(name)
        return (self.folder / name).read_bytes()

    def copy(self, data, mode=0o600):
        path = self.scratch / "copy"
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def run(self):
        before = self.checks.passed + self.checks.failed
        for case in self.manifest["kek_files"]:
            self.kek_file(case)
        for case in self.manifest["wraps"]:
            self.wrap(case)
        for database in self.manifest["databases"]:
            self.database(database)
        for case in self.manifest["ciphertexts"]:
            self.ciphertext(case)
        for pairs in self.manifest["refused_contexts"]:
            refused = {"refused_as": "context"}
            self.checks.case(f"context {pairs}", refused, lambda pairs=pairs: canonical_context(pairs))
        for place in self.manifest["refused_places"]:
            self.checks.case(f"place {place}", {"refused_as": "aad"}, lambda place=place: framed_aad(place))
        present = {path.name for path in self.folder.iterdir()}
        self.checks.equal(f"{self.folder.name}: files opened", self.seen, present)
        self.checks.equal(f"{self.folder.name}: release", self.manifest["release"], self.folder.name[1:])
        assert self.checks.passed + self.checks.failed > before

    def kek_file(self, case):
        data = changed(self.read(case["file"]), case.get("change"), case.get("mend_checksum"))
        path = self.copy(data, int(case["mode"], 8))

        def attempt():
            keks = open_kek_file(path, case["protection"])
            self.keks[case["file"]] = keks
            return public(keks)

        self.checks.case(f"KEK file {case['file']}, {case.get('change')}", case["expect"], attempt)

    def wrap(self, case):
        data, key_id = changed(self.read(case["file"]), case.get("change")), uuid.UUID(case["key_id"]).bytes
        framed = kms_context(case["context"].items(), case["usage"], key_id)
        self.checks.case(
            f"wrap {case['file']}, {case.get('change')}",
            case["expect"],
            lambda: unwrap(self.keks[case["kek_file"]], case["kek"], data, framed).hex(),
        )

    def database(self, case):
        database = Database(self.copy(self.read(case["file"])))
        allowed = {kms: self.keks[file] for kms, file in case["kms"].items()}
        self.databases[case["file"]] = database, allowed
        listed = {uuid.UUID(key["id"]).bytes for key in case["keys"]}
        self.checks.equal("keys of the database", {key["id"] for key in database.keys}, listed)
        for key in case["keys"]:
            key_id, context = uuid.UUID(key["id"]).bytes, list(key["context"].items())
            rows = [row for row in database.of_scope(context, key["usage"]) if row["id"] == key_id]
            self.checks.equal(f"key {key['id']}: rows", len(rows), 1)
            (row,) = rows
            for column in ("version", "state", "suspended_from"):
                self.checks.equal(f"key {key['id']}: {column}", row[column], key[column])
            wraps = {(kms, kek, material): wrap for of, kms, kek, wrap, material in database.wraps if of == key_id}
            named = {(wrap["kms"], wrap["kek"], wrap["material"]) for wrap in key["wraps"]}
            self.checks.equal(f"key {key['id']}: wraps", set(wraps), named)
            framed = kms_context(context, key["usage"], key_id)
            for wrap in key["wraps"]:
                blob = wraps[wrap["kms"], wrap["kek"], wrap["material"]]
                what = f"wrap of {key['id']} by {wrap['kek']}"
                if "opens_to" in wrap["expect"]:
                    check = key_check(bytes.fromhex(wrap["expect"]["opens_to"]), key_id)
                    self.checks.equal(f"{what}: key_check", row["key_check"], check)
                    self.checks.equal(f"{what}: material", str(uuid.UUID(bytes=blob[1:17])), wrap["material"])
                keks = allowed[wrap["kms"]]
                attempt = lambda: unwrap(keks, wrap["kek"], blob, framed).hex()  # noqa: E731
                self.checks.case(what, wrap["expect"], attempt)

    def ciphertext(self, case):
        data = changed(self.read(case["file"]), case.get("change"))
        database, allowed = self.databases[case["database"]]
        if case.get("sql"):
            database = Database(self.copy(self.read(case["database"])), case["sql"])
        expect = case["expect"]
        if "opens_to" in expect:
            expect = {"opens_to": content_of(expect["opens_to"])}
        context, accept = list(case["context"].items()), case.get("accept", [])
        self.checks.case(
            f"{case['file']}, {case.get('change')}, {case.get('sql')}, {case['place']}",
            expect,
            lambda: decrypt(data, context, case["place"], database, allowed, accept),
        )


NONCE, PLAINTEXT = b"ABCDEFGHIJKLMNOPQRSTUVWX", b"XAES-256-GCM"
PUBLISHED = [
    (
        bytes([1]) * 32,
        b"",
        "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
        "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
        "04076b6085eebab138855fe57811c04112eff989d44120dfff662d5475a383c3",
    ),
    (
        bytes([3]) * 32,
        b"c2sp.org/XAES-256-GCM",
        "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
        "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        "5553cd21d1592b422e3129632a3187eee8a658cdca5c5b32ce86308dcc18e9d1",
    ),
]
TEN_THOUSAND_ROUNDS = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"


def check_vectors(checks, document):
    for key, aad, message_key, sealed, commitment in PUBLISHED:
        xaes = Xaes(key)
        checks.equal("vector: Kx", xaes.message_key(NONCE).hex(), message_key)
        checks.equal("vector: text and tag", xaes.encrypt(NONCE, PLAINTEXT, aad).hex(), sealed)
        checks.equal("vector: commitment", xaes.commitment(NONCE).hex(), commitment)
        checks.equal("vector: commitment written out", xaes.commitment_written_out(NONCE).hex(), commitment)
        plain = NONCE + bytes.fromhex(sealed)
        checks.equal("vector: opens", xaes.open(plain + bytes.fromhex(commitment), aad), PLAINTEXT)
        checks.equal("vector: opens plain", xaes.open(plain, aad, committed=False), PLAINTEXT)
        for value in (message_key, sealed, commitment):
            checks.equal(f"{value} stands in the document", value in document, True)
    # A round takes at most 568 bytes.
    stream = Reader(hashlib.shake_128(b"").digest(10_000 * 568), "vector")
    total = hashlib.shake_128()
    for _ in range(10_000):
        key, nonce = stream.take(32), stream.take(24)
        plaintext = stream.take(stream.number(1))
        aad = stream.take(stream.number(1))
        total.update(Xaes(key).encrypt(nonce, plaintext, aad))
    checks.equal("10 000 rounds", total.digest(32).hex(), TEN_THOUSAND_ROUNDS)
    checks.equal("10 000 rounds stand in the document", TEN_THOUSAND_ROUNDS in document, True)


def check_compared(checks, document):
    """Computes the document's blind indexes and its password hash, and finds them in it."""
    key, key_id = bytes(range(32)), uuid.UUID("01a2053d-7b01-7cc1-b36a-182ccc288e45").bytes
    email = {"table": "users", "columns": [{"name": "email", "normalizer": "email"}], "bits": 64}
    city = {"table": "users", "columns": [{"name": "city", "normalizer": "case-fold"}], "bits": 10}
    number = {"table": "orders", "columns": [{"name": "number", "normalizer": "exact"}], "bits": 128}
    patient = [{"name": "last_name", "normalizer": "case-fold"}, {"name": "born", "normalizer": "exact"}]
    for index, values in [
        (email, [{"text": " Ada@Example.ORG"}]),
        (city, [{"text": "Straße 5"}]),
        (number, [{"integer": 42}]),
        ({"table": "patients", "columns": patient, "bits": 32}, [{"text": "LOVELACE"}, {"integer": 1815}]),
        (email | {"name": "login", "bits": 256}, [{"text": " Ada@Example.ORG"}]),
        (email, [{"text": "ΝΙΚΟΣ@example.gr"}]),
        (email, [{"text": "νικος@example.gr"}]),
        (email, [{"text": " "}]),
    ]:
        for value in blind_index(key, key_id, index, values):
            checks.equal(f"blind index: {value.hex()} stands in the document", value.hex() in squeezed(document), True)
    # RFC 9106, section 5.3.
    published = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    found = argon2id(b"\1" * 32, b"\2" * 16, b"\3" * 8, 32, 3, 4, b"\4" * 12)
    checks.equal("Argon2id with a secret", found.hex(), published)
    place = {"kind": "field", "table": "users", "column": "password", "row": [{"integer": 7}]}
    pepper, output, text = password_hash(key, key_id, place, b"correct horse", bytes(range(16)), 64, 1, 1)
    for value in (pepper.hex(), output.hex()):
        checks.equal(f"password: {value} stands in the document", value in squeezed(document), True)
    checks.equal(f"password: {text} stands in the document", text in document, True)


def squeezed(document):
    # In an example's lines, the first word is hex and the others are notes.
    blocks = re.findall(r"(?:^    [0-9a-f]+(?:  .*)?\n)+", document, re.MULTILINE)
    return "\n".join("".join(line.split()[0] for line in block.splitlines()) for block in blocks)


def check_examples(checks, release, document):
    """Computes the document's examples, which are golden files taken apart, and finds them in it."""
    data = release.read("ciphertext-row.bin")
    case = next(case for case in release.manifest["ciphertexts"] if case["file"] == "ciphertext-row.bin")
    context, aad = list(case["context"].items()), framed_aad(case["place"])
    database, allowed = release.databases[case["database"]]
    ciphertext = Ciphertext(data)
    key_id, scope = ciphertext.key_id, scope_of(context, "data")
    data_key = database.data_key(context, "data", key_id, allowed, [])
    _, _, kek, wrap, material = next(row for row in database.wraps if row[0] == key_id)
    key = next(found for found in allowed["default"] if found["id"] == kek)["keys"][material]
    name, framed = kek.encode(), kms_context(context, "data", key_id)
    path = {"kind": "field", "table": "users", "column": "profile", "row": [{"text": "a"}], "path": ["3"]}
    row = {"kind": "field", "table": "users", "column": "profile", "row": [{"text": "a"}, {"text": "3"}]}
    row_of_token = {"uuid": "00112233-4455-6677-8899-aabbccddeeff"}
    token = {"kind": "field", "table": "tokens", "column": "digest", "row": [row_of_token]}
    token["bound"] = [("owner", {"text": "ada"}), ("expires_at", None)]
    kek_file = release.read("keks-passphrase.encx")
    passphrase = release.manifest["kek_files"][0]["protection"]["passphrase"].encode()
    file_key = hash_secret_raw(passphrase, kek_file[22:38], 2, 256, 3, 32, Type.ID, version=0x13)
    examples = {
        "canonical context": canonical_context(context),
        "scope": scope,
        "framed AAD": aad,
        "framed AAD, path": framed_aad(path),
        "framed AAD, composite id": framed_aad(row),
        "framed AAD, token": framed_aad(token),
        "data key": data_key,
        "key_check": key_check(data_key, key_id),
        "ciphertext": data,
        "K1": Xaes(data_key).k1,
        "Kx": Xaes(data_key).message_key(ciphertext.sealed[:24]),
        "GCM AAD": data[:18] + scope + aad,
        "KMS context": framed,
        "wrap": wrap,
        "material": key,
        "AAD of the wrap": b"encx/local-wrap/v1" + wrap[:17] + u16(len(name)) + name + framed,
        "KEK file's key": file_key,
        "KEK file's body": Xaes(file_key).open(kek_file[42:-32], kek_file[:38]),
        "KEK file's header": kek_file[:38],
        "KEK file's rest": kek_file[38:],
    }
    for what, value in examples.items():
        found = value.hex() in squeezed(document)
        checks.equal(f"example: {what}, {value.hex()}, stands in the document", found, True)


def main():
    document = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    checks = Checks()
    check_vectors(checks, document)
    check_compared(checks, document)
    folders = sorted(path for path in (ROOT / "tests" / "golden").iterdir() if path.is_dir())
    for folder in folders:
        with tempfile.TemporaryDirectory() as scratch:
            release = Release(folder, Path(scratch), checks)
            release.run()
            if folder.name == "v0.1.0":
                check_examples(checks, release, document)
    print(f"{checks.passed} passed, {checks.failed} failed")
    if not folders:
        print("there are no golden files", file=sys.stderr)
    return 0 if folders and checks.passed and not checks.failed else 1


if __name__ == "__main__":
    sys.exit(main())
