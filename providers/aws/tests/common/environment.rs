//! Runs tests again in a child process with a chosen environment, because all tests share this process's environment.

/// Runs a test again in a child process with this environment, and returns what it printed after `said: `. `None` in
/// the child itself. A variable without a value is unset there.
pub(crate) fn in_environment(test: &str, variables: &[(&str, &str)]) -> Option<String> {
    if is_child() {
        return None;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    for (variable, value) in variables {
        match *value {
            UNSET => command.env_remove(variable),
            value => command.env(variable, value),
        };
    }
    let child = command.output().unwrap();
    let printed = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{printed}");
    let said = printed.lines().filter_map(|line| line.split_once("said: "));
    Some(said.map(|(_, said)| format!("{said}\n")).collect())
}

const CHILD: &str = "ENCX_TEST_CHILD";

/// Tells whether this is such a child.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// The value that unsets a variable.
pub(crate) const UNSET: &str = "<unset>";
