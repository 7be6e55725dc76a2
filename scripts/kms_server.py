"""Runs moto's AWS KMS for tests on a loopback port, with moto's faults corrected.

    kms_server.py PORT

Corrected, because AWS KMS behaves differently according to its documentation:

- Keys that are disabled or pending deletion do nothing. (moto lets them.)
- A wrong KeyId or SourceKeyId is an IncorrectKeyException. (moto: AccessDeniedException, or ignored.)
- Pairs of an encryption context are framed. (moto: `{a: bc}` and `{ab: c}` are the same.)
- Replicas of a multi-region key open each other's ciphertexts, and each reports its role. (moto: neither.)
- A replica has the policy, description and tags it was created with. (moto: the primary's policy, and no tags.)
- An ARN of another region or account is not found. (moto: looks at the id alone.)
- Key material has an id, an on-demand rotation makes new material, and a rotation has a period. (moto: no.)
- A key that is created without a usage is for encryption. (moto: has none.)
- Keys are disabled, enabled and deleted by their ARN as well as by their id. (moto: by id.)
- A key policy is returned with its lists in another order, and a list of one as a text. (moto: unchanged.)
- A blob that cannot be parsed is an InvalidCiphertextException. (moto: some raise other errors.)

Prints one line when it accepts connections.
"""

import base64
import copy
import hashlib
import json
import os
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from moto.core.exceptions import JsonRESTError
from moto.kms import models, responses
from moto.kms.exceptions import InvalidCiphertextException, NotFoundException
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Key, KmsBackend, KmsResponse = models.Key, models.KmsBackend, responses.KmsResponse


def refuse(code, message):
    error = JsonRESTError(code, message)
    error.code = 400
    return error


def framed(context):
    parts = []
    for pair in sorted(context.items()):
        for text in pair:
            data = text.encode()
            parts += [len(data).to_bytes(4, "big"), data]
    return b"".join(parts)


def material_id(material):
    return hashlib.sha256(b"material" + material).hexdigest()


# Key material that rotates, and that replicas share because they share the list.

key_init = Key.__init__


def init_with_materials(self, *args, **kwargs):
    key_init(self, *args, **kwargs)
    self.key_usage = self.key_usage or "ENCRYPT_DECRYPT"
    self.materials = [self.key_material]
    self.rotation_period = 365


Key.__init__ = init_with_materials
key_to_dict = Key.to_dict


def to_dict_with_material(self):
    described = key_to_dict(self)
    described["KeyMetadata"]["CurrentKeyMaterialId"] = material_id(self.materials[-1])
    return described


Key.to_dict = to_dict_with_material


def encrypt(master_keys, key_id, plaintext, encryption_context):
    key = master_keys.get(key_id)
    if key is None:
        raise NotFoundException(f"Key '{key_id}' does not exist")
    material = key.materials[-1]
    name = key_id.encode()
    header = b"\x01" + bytes([len(name)]) + name + bytes.fromhex(material_id(material)) + os.urandom(12)
    sealed = AESGCM(material).encrypt(header[-12:], plaintext, header + framed(encryption_context))
    return header + sealed


def decrypt(master_keys, ciphertext_blob, encryption_context):
    key_id, opened, _ = opened_by(master_keys, ciphertext_blob, encryption_context)
    return opened, key_id


def opened_by(master_keys, blob, context):
    try:
        length = blob[1]
        key_id = blob[2 : 2 + length].decode()
        end = 2 + length + 32 + 12
        header = blob[:end]
        wanted = blob[2 + length : 2 + length + 32].hex()
        [material] = [it for it in master_keys[key_id].materials if material_id(it) == wanted]
        opened = AESGCM(material).decrypt(header[-12:], blob[end:], header + framed(context))
        return key_id, opened, wanted
    except Exception:
        raise InvalidCiphertextException() from None


models.encrypt = encrypt
models.decrypt = decrypt


def rotate_key_on_demand(self, key_id):
    self.keys[self.get_key_id(key_id)].materials.append(os.urandom(32))
    return key_id


def replicate_key(self, key_id, replica_region):
    primary = self.keys[self.get_key_id(key_id)]
    if not primary.multi_region:
        raise refuse("UnsupportedOperationException", f"{primary.arn} is not a multi-Region key")
    elsewhere = models.kms_backends[self.account_id][replica_region]
    if primary.id in elsewhere.keys:
        raise refuse("AlreadyExistsException", f"{primary.id} already has a replica in {replica_region}")
    replica = copy.copy(primary)
    replica.region = replica_region
    replica.arn = primary.arn.replace(f":{self.region_name}:", f":{replica_region}:")
    replica.aliases = {}
    replica.grants = {}
    regions = primary.multi_region_configuration["ReplicaKeys"]
    regions.append({"Arn": replica.arn, "Region": replica_region})
    replica.multi_region_configuration = dict(primary.multi_region_configuration, MultiRegionKeyType="REPLICA")
    elsewhere.keys[replica.id] = replica
    return replica


replicate_key_alone = KmsResponse.replicate_key


def replicate_with_its_own(self):
    answer = replicate_key_alone(self)
    metadata = json.loads(answer)["ReplicaKeyMetadata"]
    elsewhere = models.kms_backends[self.current_account][self._get_param("ReplicaRegion")]
    replica = elsewhere.keys[metadata["KeyId"]]
    replica.policy = self._get_param("Policy") or replica.policy
    replica.description = self._get_param("Description") or ""
    if tags := self._get_param("Tags"):
        elsewhere.tagger.tag_resource(replica.id, tags)
    return answer


KmsResponse.replicate_key = replicate_with_its_own


def describe_key(self, key_id):
    return self.keys[self.any_id_to_key_id(key_id)]


KmsBackend.rotate_key_on_demand = rotate_key_on_demand
KmsBackend.replicate_key = replicate_key
KmsBackend.describe_key = describe_key



def by_arn_too(method):
    return lambda self, key_id, *args: method(self, self.get_key_id(key_id), *args)


for name in ("cancel_key_deletion", "disable_key", "enable_key", "schedule_key_deletion"):
    setattr(KmsBackend, name, by_arn_too(getattr(KmsBackend, name)))

validate_key_id = KmsResponse._validate_key_id


def validate_place_too(self, key_id):
    if key_id.startswith("arn:"):
        parts = key_id.split(":")
        if parts[3] != self.region or parts[4] != self.current_account:
            raise NotFoundException(f"Invalid arn {parts[3]}")
    validate_key_id(self, key_id)


KmsResponse._validate_key_id = validate_place_too


def usable(self, key_id):
    self._validate_key_id(key_id)
    backend = self.kms_backend
    key = backend.keys[backend.any_id_to_key_id(key_id)]
    if key.key_state == "Disabled":
        raise refuse("DisabledException", f"{key.arn} is disabled.")
    if key.key_state != "Enabled":
        raise refuse("KMSInvalidStateException", f"{key.arn} is {key.key_state}.")
    return key


def opens(self, key_id, context):
    """Opens a blob with the named key, and returns the key, the id of the material and the plaintext."""
    key = usable(self, key_id)
    blob = self._get_param("CiphertextBlob")
    found, opened, material = opened_by(self.kms_backend.keys, blob, context)
    if found != key.id:
        raise refuse("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
    return key, material, opened


def checked(method):
    def call(self):
        key = usable(self, self._get_param("KeyId"))
        answer = json.loads(method(self))
        if "Plaintext" in answer:
            answer["KeyMaterialId"] = material_id(key.materials[-1])
        return json.dumps(answer)

    return call


def answer_decrypt(self):
    key, material, opened = opens(self, self._get_param("KeyId"), self._get_param("EncryptionContext", {}))
    return json.dumps({"KeyId": key.arn, "KeyMaterialId": material, "Plaintext": base64_of(opened)})


def answer_re_encrypt(self):
    source, material, opened = opens(self, self._get_param("SourceKeyId"), self._get_param("SourceEncryptionContext", {}))
    target = usable(self, self._get_param("DestinationKeyId"))
    context = self._get_param("DestinationEncryptionContext", {})
    blob = encrypt(self.kms_backend.keys, target.id, opened, context)
    answer = {
        "CiphertextBlob": base64_of(blob),
        "KeyId": target.arn,
        "SourceKeyId": source.arn,
        "SourceKeyMaterialId": material,
        "DestinationKeyMaterialId": material_id(target.materials[-1]),
    }
    return json.dumps(answer)


def base64_of(data):
    return base64.b64encode(data).decode()


KmsResponse.encrypt = checked(KmsResponse.encrypt)
KmsResponse.generate_data_key = checked(KmsResponse.generate_data_key)
KmsResponse.decrypt = answer_decrypt
KmsResponse.re_encrypt = answer_re_encrypt

enable_key_rotation = KmsResponse.enable_key_rotation


def enable_with_period(self):
    answer = enable_key_rotation(self)
    key = self.kms_backend.describe_key(self._get_param("KeyId"))
    key.rotation_period = self._get_param("RotationPeriodInDays", 365)
    return answer


def rotation_status(self):
    key_id = self._get_param("KeyId")
    self._validate_cmk_id(key_id)
    key = self.kms_backend.describe_key(key_id)
    answer = {"KeyId": key.arn, "KeyRotationEnabled": key.key_rotation_status}
    if key.key_rotation_status:
        answer["RotationPeriodInDays"] = key.rotation_period
    return json.dumps(answer)


KmsResponse.enable_key_rotation = enable_with_period
KmsResponse.get_key_rotation_status = rotation_status

get_key_policy = KmsResponse.get_key_policy


def in_another_form(statement):
    def other(values):
        if not isinstance(values, list):
            return values
        return values[0] if len(values) == 1 else values[::-1]

    statement = dict(statement, Action=other(statement["Action"]))
    if isinstance(statement.get("Principal"), dict):
        statement["Principal"] = {kind: other(names) for kind, names in statement["Principal"].items()}
    return statement


def policy_in_another_form(self):
    answer = json.loads(get_key_policy(self))
    policy = json.loads(answer["Policy"])
    policy["Statement"] = [in_another_form(statement) for statement in reversed(policy["Statement"])]
    return json.dumps(dict(answer, Policy=json.dumps(policy)))


KmsResponse.get_key_policy = policy_in_another_form


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args):
        pass


def main():
    port = int(sys.argv[1])
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Quiet)
    print("ready", flush=True)
    server.serve_forever()


main()
