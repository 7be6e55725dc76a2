"""Applies the examples of the Terraform modules to moto, uses the resources, and destroys them.

    terraform_apply.py FOLDER [EXAMPLE..]

FOLDER is a copy of terraform/; this script adds files to its examples. Needs in the environment:

- AWS_ENDPOINT_URL and any credentials: moto accepts all, and returns credentials for the account that the examples name
- AWS_CLI: the command of the AWS CLI
- the settings with which `terraform init` finds the provider

and the examples `encrypt_row` and `provision` of encx-aws and `notes` of encx-config, as Cargo has built them.

For each example: apply; plan again, which must change nothing; with the outputs, let encx-aws and encx-config encrypt and decrypt rows;
wrap and unwrap a data key, and fail under another context; destroy; check that the key is pending deletion. The tests of encx-aws that
take a user's key run with two of them. `existing-key` imports a key that `provision` created, and plans to import one that was created
by hand.
"""

import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys

import boto3
import botocore.exceptions

ACCOUNT, OTHER = "111122223333", "444455556666"
REGION = "eu-central-1"
DELETERS = json.dumps([f"arn:aws:iam::{ACCOUNT}:role/terraform"])
# Paths instead of hosts: the server has one address, and no domain per bucket.
OVERRIDE = 'provider "aws" {\n  s3_use_path_style = true\n}\n'
# The examples for encx-aws's tests that take a user's key.
USED_BY_ENCX = ("existing-role", "two-regions")
# The same features as the workspace's tests, so that nothing is built twice.
CARGO = ("--locked", "--quiet", "--workspace", "--all-features")
# The parts that moto supports; the rest of the example is not applied.
ONLY = {"eks-pod-identity": "module.kms"}
CONTEXT = {"purpose": "pii", "tenantId": "t-42", "encx:v": "1"}


class Failed(Exception):
    pass


def run(folder, *command, **variables):
    """Runs a program and returns its exit code and output."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900
    )
    return done.returncode, done.stdout


def must(folder, *command, **variables):
    status, output = run(folder, *command, **variables)
    if status != 0:
        # A failed apply shows its whole plan before the error.
        raise Failed(f"{shlex.join(command)} failed in {folder}:\n{output[max(0, output.find('Error: ')) :]}")
    return output


def client(service, region_name):
    # Not the default session, which keeps its first credentials.
    return boto3.Session(region_name=region_name).client(service)


def take_account(account):
    """Returns credentials for an account. moto tells accounts apart by them."""
    role = f"arn:aws:iam::{account}:role/terraform"
    taken = client("sts", region_name=REGION).assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": taken["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": taken["SecretAccessKey"],
        "AWS_SESSION_TOKEN": taken["SessionToken"],
    }


def make_roles():
    """Creates what the examples expect to exist: the service's role, in both accounts. Continues with the credentials of the first."""
    for account in (OTHER, ACCOUNT):
        os.environ.update(take_account(account))
        trust = {"Version": "2012-10-17", "Statement": []}
        client("iam", region_name=REGION).create_role(RoleName="shop", AssumeRolePolicyDocument=json.dumps(trust))


def wrap_and_unwrap(name, environment):
    kms = client("kms", region_name=environment["AWS_REGION"])
    key = environment["AWS_KMS_KEY_ID"]
    if f":{environment['AWS_REGION']}:" not in key:
        # A replica answers for its region; the SDK calls the region of the ARN first, encx the nearest.
        key = key.split("/")[-1]
    made = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
    wrapped = {"KeyId": key, "CiphertextBlob": made["CiphertextBlob"]}
    if kms.decrypt(EncryptionContext=CONTEXT, **wrapped)["Plaintext"] != made["Plaintext"]:
        raise Failed(f"{name}: another data key was unwrapped")
    try:
        kms.decrypt(EncryptionContext=CONTEXT | {"tenantId": "t-43"}, **wrapped)
    except botocore.exceptions.ClientError:
        return
    raise Failed(f"{name}: the data key was unwrapped under another context")


def built(example):
    """Returns the path of an example that Cargo has built."""
    return str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"), "debug", "examples", example).resolve())


def encrypt_rows(name, folder, environment, config):
    """Lets encx-aws write and read a row with the environment, and encx-config rows with the environment and with the part of encx.toml."""
    output = must(folder, built("encrypt_row"), "row.db", **environment)
    if "read row 1: 123-45-6789" not in output:
        raise Failed(f"{name}: encx-aws read something else:\n{output}")
    store = {"ENCX_KEY_STORE": f"sqlite:{folder / 'row.db'}"}
    # This one takes precedence over AWS's usual variable.
    must(folder, built("notes"), "write", **environment | store | {"AWS_KMS_KEY_ID": "alias/another"})
    (folder / "encx.toml").write_text(config)
    status, output = run(folder, built("notes"), "read", **store)
    (folder / "encx.toml").unlink()
    (folder / "row.db").unlink()
    # moto has one endpoint, and one for several regions is refused. At that point the file has been parsed.
    several = "cannot serve several regions" in output and environment["AWS_REGION"] in output
    if "read 40 notes" not in output and not (several and config.count("eu-west-1") > 0):
        raise Failed(f"{name}: encx-config exits with {status} and {output}\nunder\n{config}")


def check_commands(name, commands):
    """Runs the commands in the output `validation_commands`, unchanged."""
    for shows, command in commands.items():
        # moto enforces no key policy, and so refuses nothing.
        if command is None or shows == "refused":
            continue
        if not command.startswith("aws "):
            raise Failed(f"{name}: {command} is no command of the AWS CLI")
        output = must(".", *shlex.split(os.environ["AWS_CLI"]), *shlex.split(command)[1:])
        wanted = {"enabled": "Enabled", "rotation": '"KeyRotationEnabled": true', "policy": "EncxAccountAdministers", "tags": '"kek"'}
        if wanted.get(shows, "arn:aws:kms:") not in output:
            raise Failed(f"{name}: {command} shows {output}")


def use_by_encx(name, environment):
    output = must(
        *(".", "cargo", "test", *CARGO, "--test", "live", "--", "--ignored"),
        TEST_KMS_KEY_ID=environment["AWS_KMS_KEY_ID"],
        AWS_REGION=environment["AWS_REGION"],
    )
    if " 0 passed" in output or "test result: ok" not in output:
        raise Failed(f"{name}: no test of encx-aws ran:\n{output}")


def provision(users):
    """Creates a key as `provision` of encx-aws does, and returns its id."""
    arguments = ["--alias", "alias/shop-old", "--account", ACCOUNT]
    for user in users:
        arguments += ["--user", user]
    must(".", built("provision"), *arguments, AWS_REGION=REGION)
    kms = client("kms", region_name=REGION)
    return kms.describe_key(KeyId="alias/shop-old")["KeyMetadata"]["KeyId"]


def make_by_hand(users):
    """Creates a key as docs/aws.md does with the AWS CLI, and returns its id."""
    arguments = ["--print-policy", "key", "--account", ACCOUNT]
    for user in users:
        arguments += ["--user", user]
    kms = client("kms", region_name=REGION)
    key = kms.create_key(
        Description="KEK of encx, alias/shop-old",
        Tags=[{"TagKey": "encx", "TagValue": "kek"}],
        Policy=must(".", built("provision"), *arguments),
    )["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/shop-old", TargetKeyId=key)
    kms.enable_key_rotation(KeyId=key, RotationPeriodInDays=90)
    return key


def check_import(name, folder, by, key):
    planned = must(folder, "terraform", "plan", "-input=false", "-no-color", f"-var=key_id={key}")
    if "Plan: 2 to import, 0 to add, 0 to change, 0 to destroy." not in planned:
        raise Failed(f"{name}: Terraform would change the key that was made by {by}:\n{planned}")


def keys_of(folder):
    """Returns the ARNs of the keys in a state."""
    state = json.loads(must(folder, "terraform", "show", "-json"))
    modules, keys = [state["values"]["root_module"]], []
    while modules:
        module = modules.pop()
        modules += module.get("child_modules", [])
        kinds = ("aws_kms_key", "aws_kms_replica_key")
        keys += [it["values"]["arn"] for it in module.get("resources", []) if it["mode"] == "managed" and it["type"] in kinds]
    return keys


def apply(folder):
    name = folder.name
    (folder / "moto_override.tf").write_text(OVERRIDE)
    must(folder, "terraform", "init", "-input=false", "-no-color")
    arguments = ["-input=false", "-no-color"]
    if name == "existing-key":
        # Its policy is that of `provision`, which lets no identity delete it.
        users = [f"arn:aws:iam::{ACCOUNT}:role/shop"]
        check_import(name, folder, "hand", make_by_hand(users))
        client("kms", region_name=REGION).delete_alias(AliasName="alias/shop-old")
        key = provision(users)
        check_import(name, folder, "`provision`", key)
        arguments.append(f"-var=key_id={key}")
    else:
        arguments.append(f"-var=key_deleters={DELETERS}")
    if name in ONLY:
        arguments.append(f"-target={ONLY[name]}")
    must(folder, "terraform", "apply", "-auto-approve", *arguments)
    status, planned = run(folder, "terraform", "plan", "-detailed-exitcode", *arguments)
    if status != 0:
        raise Failed(f"{name}: a second apply would change something:\n{planned}")
    outputs = {key: it["value"] for key, it in json.loads(must(folder, "terraform", "output", "-json")).items()}
    for key, environment in outputs.items():
        if key.startswith("encx_env"):
            wrap_and_unwrap(name, environment)
            encrypt_rows(name, folder, environment, outputs[key.replace("encx_env", "encx_config")])
    check_commands(name, outputs.get("validation_commands", {}))
    if name in USED_BY_ENCX:
        use_by_encx(name, outputs["encx_env"])
    keys = keys_of(folder)
    must(folder, "terraform", "destroy", "-auto-approve", *arguments)
    if must(folder, "terraform", "state", "list").strip():
        raise Failed(f"{name}: destroy left something behind")
    for key in keys:
        state = client("kms", region_name=key.split(":")[3]).describe_key(KeyId=key)["KeyMetadata"]["KeyState"]
        if not state.startswith("Pending"):
            raise Failed(f"{name}: {key} is {state} after destroy")
    return f"{name}: applied, used, unchanged, destroyed ({len(keys)} keys)"


def main():
    folder = pathlib.Path(sys.argv[1])
    names = sys.argv[2:] or sorted(path.name for path in (folder / "examples").iterdir() if path.is_dir())
    make_roles()
    failed = False
    # They mostly wait: the provider polls until its resources exist.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in concurrent.futures.as_completed([pool.submit(apply, folder / "examples" / name) for name in names]):
            try:
                print(done.result(), flush=True)
            except Exception as error:
                failed = True
                print(f"FAILED {error}", flush=True)
    sys.exit(failed)


main()
