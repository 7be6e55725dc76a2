//! Runs the example `provision`.

use std::process::Command;

use super::HOME;

pub(crate) const ACCOUNT: &str = "123456789012";

/// Its exit status and output.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) succeeded: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs it with the KMS of the home region at one address, and those of replicas at another.
pub(crate) async fn run(home: &str, elsewhere: &str, arguments: &[&str]) -> Run {
    let mut command = Command::new(super::example("provision"));
    command
        .args(["--account", ACCOUNT])
        .args(arguments)
        .env("AWS_REGION", HOME)
        .env("AWS_ENDPOINT_URL_KMS", home)
        .env("PROVISION_REPLICA_ENDPOINT", elsewhere)
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
        .env("AWS_MAX_ATTEMPTS", "1")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    Run {
        succeeded: output.status.success(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
