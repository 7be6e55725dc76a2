//! Exit codes, and the errors that lead to them.

use std::error::Error as StdError;
use std::fmt;
use std::process::ExitCode;

use encx::Error;
use encx::jobs::JobError;
use encx::kms::KmsError;
use encx::store::StoreError;
use encx_config::ConfigError;
use encx_tables::RowsError;

use crate::receipts::ReceiptError;

/// The program's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Usage,
    Unreachable,
    Finding,
    Refused,
    Interrupted,
    BrokenPipe,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Usage => 1,
            Exit::Unreachable => 2,
            Exit::Finding => 3,
            Exit::Refused => 4,
            Exit::Interrupted => 130,
            // As if SIGPIPE had ended the process; Rust programs ignore that signal.
            Exit::BrokenPipe => 141,
        })
    }
}

/// A refusal by one of this program's rules.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Refused {}

impl Exit {
    /// Maps an error to a code by the types in its chain, never by its text.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(of_cause).unwrap_or(Self::Usage)
    }

    pub(crate) fn of_encx(error: &Error) -> Self {
        match error {
            Error::Kms(_)
            | Error::KmsCircuitOpen { .. }
            | Error::TimedOut { .. }
            | Error::Interrupted
            | Error::StaleState
            | Error::KeyMismatch { .. }
            | Error::RolledBack { .. } => Self::Unreachable,
            Error::Store(error) => of_store(error),
            Error::AlreadyExists
            | Error::Compromised { .. }
            | Error::Destroyed { .. }
            | Error::KekNotAllowed { .. }
            | Error::KekNotInRule { .. }
            | Error::NoActiveKey
            | Error::NoKek
            | Error::NoKeys
            | Error::Shredded
            | Error::StillInUse { .. }
            | Error::Suspended { .. } => Self::Refused,
            _ => Self::Usage,
        }
    }
}

impl Exit {
    /// Maps the error that ended a job; `None` if only its text is known.
    pub(crate) fn of_job(error: &JobError) -> Option<Self> {
        match error {
            JobError::Encx(error) => Some(Self::of_encx(error)),
            JobError::Walk { source, .. } => source.downcast_ref::<RowsError>().map(of_rows),
            _ => None,
        }
    }

    /// Returns the graver of two codes, for a command with several results.
    pub(crate) fn worse(self, other: Self) -> Self {
        let gravity = |exit: Self| match exit {
            Self::Done => 0,
            Self::Finding => 1,
            Self::Refused => 2,
            Self::Usage => 3,
            Self::Unreachable => 4,
            Self::Interrupted => 5,
            Self::BrokenPipe => 6,
        };
        match gravity(other) > gravity(self) {
            true => other,
            false => self,
        }
    }
}

fn of_rows(error: &RowsError) -> Exit {
    match error {
        RowsError::AdoptionEnded { .. } | RowsError::Contracted { .. } => Exit::Refused,
        RowsError::Database { .. } | RowsError::RowBusy | RowsError::Standby => Exit::Unreachable,
        RowsError::Encx(error) => Exit::of_encx(error),
        _ => Exit::Usage,
    }
}

fn of_cause(cause: &(dyn StdError + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<ConfigError>() {
        return match error {
            ConfigError::Encx(error) => Some(Exit::of_encx(error)),
            ConfigError::Store { source, .. } => Some(of_store(source)),
            // Its source tells whether the KMS or the settings are at fault.
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<Error>() {
        return Some(Exit::of_encx(error));
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some(of_store(error));
    }
    if cause.is::<KmsError>() {
        return Some(Exit::Unreachable);
    }
    if let Some(error) = cause.downcast_ref::<JobError>() {
        return Exit::of_job(error);
    }
    if let Some(error) = cause.downcast_ref::<RowsError>() {
        return Some(of_rows(error));
    }
    if let Some(error) = cause.downcast_ref::<ReceiptError>() {
        return Some(match error {
            ReceiptError::Io { .. } | ReceiptError::Locked { .. } => Exit::Usage,
            _ => Exit::Finding,
        });
    }
    cause.is::<Refused>().then_some(Exit::Refused)
}

fn of_store(error: &StoreError) -> Exit {
    match error {
        StoreError::Conflict
        | StoreError::IllegalTransition { .. }
        | StoreError::StaleRevision { .. }
        | StoreError::Superseded { .. } => Exit::Refused,
        StoreError::NotFound { .. } | StoreError::Invalid { .. } => Exit::Usage,
        _ => Exit::Unreachable,
    }
}

/// Formats an error and its causes, each text once: most encx errors already include their cause.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str("\n  caused by: ");
            text.push_str(&cause);
        }
    }
    crate::output::printable(&text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use encx::kms::{KekId, KmsErrorKind, KmsOperation};

    use super::*;

    fn kms_error() -> KmsError {
        let kek = KekId::new("alias/app").unwrap();
        KmsError::new(
            KmsErrorKind::AccessDenied,
            "aws-kms",
            KmsOperation::DescribeKek,
            &kek,
        )
    }

    #[test]
    fn the_code_follows_the_type_and_not_the_text() {
        let of = |error: anyhow::Error| Exit::of(&error);
        assert_eq!(of(Error::Shredded.into()), Exit::Refused);
        assert_eq!(of(Error::Kms(kms_error()).into()), Exit::Unreachable);
        assert_eq!(of(ConfigError::Encx(Error::NoKek).into()), Exit::Refused);
        assert_eq!(of(StoreError::Conflict.into()), Exit::Refused);
        assert_eq!(
            of(StoreError::NotMigrated { found: "none".into() }.into()),
            Exit::Unreachable
        );
        assert_eq!(of(Refused("no".into()).into()), Exit::Refused);
        assert_eq!(of(anyhow::anyhow!("the KMS failed")), Exit::Usage);
        let gone = RowsError::NoSuchTable {
            table: "users".into(),
        };
        assert_eq!(of(encx::jobs::JobError::from(gone.clone()).into()), Exit::Usage);
        assert_eq!(of(gone.into()), Exit::Usage);
        assert_eq!(
            of(RowsError::Encx(Error::Kms(kms_error())).into()),
            Exit::Unreachable
        );
        let wrapped = anyhow::Error::from(Error::Shredded).context("could not rotate");
        assert_eq!(of(wrapped), Exit::Refused);
    }

    #[test]
    fn the_gravest_of_several_codes_holds() {
        let all = [Exit::Finding, Exit::Done, Exit::Unreachable, Exit::Refused];
        assert_eq!(all.into_iter().fold(Exit::Done, Exit::worse), Exit::Unreachable);
        assert_eq!(Exit::Done.worse(Exit::Done), Exit::Done);
        assert_eq!(Exit::Unreachable.worse(Exit::Interrupted), Exit::Interrupted);
    }

    #[test]
    fn a_cause_that_is_told_already_is_not_told_twice() {
        let error = anyhow::Error::from(Error::Store(StoreError::Unavailable {
            source: Arc::new(std::io::Error::other("connection refused")),
        }));
        let text = describe(&error.context("could not list keys"));
        assert_eq!(text.matches("connection refused").count(), 1, "{text}");
        assert!(text.starts_with("could not list keys\n  caused by: "), "{text}");
    }

    #[test]
    fn a_terminal_is_not_controlled_by_what_an_error_says() {
        assert_eq!(describe(&anyhow::anyhow!("no\u{1b}[2Jkey")), "no\\u{1b}[2Jkey");
    }
}
