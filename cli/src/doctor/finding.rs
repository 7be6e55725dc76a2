//! Results of a check: findings with a stable code, a severity and a remedy, and parts that could not run.

use clap::ValueEnum;
use serde::{Serialize, Serializer};

/// The kind of a finding, for scripts and `--accept`. A code never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Code {
    ClockBehindRows,
    ClockSkewDatabase,
    ClockSkewKms,
    ColumnGone,
    ColumnType,
    ColumnUndeclared,
    DatabaseDamaged,
    DatabaseFileReadable,
    DatabaseFileWritable,
    DestroyedWithWrap,
    FsyncOff,
    FullPageWritesOff,
    HintsDoNotArrive,
    InsecureAllowed,
    KekAccessDenied,
    KekDisabled,
    KekNotAllowed,
    KekNotFound,
    KekPendingDeletion,
    KekRotationOff,
    KekUnavailable,
    KeyCheckMismatch,
    KmsInMemory,
    KmsUnreachable,
    NotPrimary,
    PoolerNotDeclared,
    PostgresVersion,
    ProcessSilent,
    ProcessVersion,
    ReceiptsUnreadable,
    ReplicaLag,
    RoleAttributes,
    RoleExcessRights,
    RoleMayEditAudit,
    RoleOwnsTables,
    RoleSuperuser,
    RotationDue,
    RowEdited,
    SchemaBehind,
    SchemaNewer,
    SettingsUnusable,
    ShreddingUndone,
    TwoActive,
    UnwrapDenied,
    UnwrapRefused,
    ValidationFailed,
    VersionMissing,
    WrapGone,
    WrongContextAccepted,
}

impl Code {
    /// Returns the code's name, such as `kek-disabled`.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// The severity of a finding, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Data is unreadable or about to be lost.
    Error,
    /// Something will fail, or a fault is hidden.
    Warning,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One fault.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) code: Code,
    pub(crate) severity: Severity,
    /// The affected KEK, version, column or role.
    pub(crate) subject: String,
    /// The fault and its consequence.
    pub(crate) what: String,
    /// What to do.
    pub(crate) remedy: String,
    /// Whether the caller accepts it, so that it does not count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) accepted: bool,
}

/// The findings of one check, and the parts of it that could not run.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) findings: Vec<Finding>,
    pub(crate) not_checked: Vec<String>,
}

impl Check {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            findings: Vec::new(),
            not_checked: Vec::new(),
        }
    }

    pub(crate) fn error(
        &mut self,
        code: Code,
        subject: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.find(Severity::Error, code, subject, what, remedy);
    }

    pub(crate) fn warning(
        &mut self,
        code: Code,
        subject: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.find(Severity::Warning, code, subject, what, remedy);
    }

    pub(crate) fn find(
        &mut self,
        severity: Severity,
        code: Code,
        subject: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding {
            code,
            severity,
            subject: subject.into(),
            what: what.into(),
            remedy: remedy.into(),
            accepted: false,
        });
    }

    /// Notes that a part could not run, and why.
    pub(crate) fn not_checked(&mut self, why: impl Into<String>) {
        self.not_checked.push(why.into());
    }

    /// Returns the result, for scripts.
    pub(crate) fn status(&self) -> &'static str {
        match (self.findings.is_empty(), self.not_checked.is_empty()) {
            (false, _) => "findings",
            (true, false) => "not-checked",
            (true, true) => "ok",
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'c> {
            name: &'static str,
            status: &'static str,
            findings: &'c [Finding],
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            not_checked: &'c [String],
        }
        Written {
            name: self.name,
            status: self.status(),
            findings: &self.findings,
            not_checked: &self.not_checked,
        }
        .serialize(serializer)
    }
}

/// Formats a count, such as `1 version` and `2 versions`.
#[allow(clippy::needless_pass_by_value, reason = "it is a number")]
pub(crate) fn count_of<N: PartialEq<N> + From<u8> + std::fmt::Display>(count: N, of: &str) -> String {
    match count == N::from(1) {
        true => format!("1 {of}"),
        false => format!("{count} {of}s"),
    }
}

/// Maximum number of things that a finding names.
const NAMED: usize = 5;

/// Names the first things and the total count.
pub(crate) fn subject(of: &str, names: &[String], count: u64) -> String {
    let named = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>();
    let named = named.join(", ");
    let ending = if of.ends_with('s') { "es" } else { "s" };
    match usize::try_from(count) {
        Ok(1) => format!("{of} {named}"),
        Ok(..=NAMED) => format!("{count} {of}{ending}: {named}"),
        _ => format!("{count} {of}{ending}, such as {named}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_things_are_named_and_all_counted() {
        let names: Vec<_> = (1..=6).map(|number| number.to_string()).collect();
        assert_eq!(subject("data key", &names[..1], 1), "data key 1");
        assert_eq!(subject("process", &names[..2], 2), "2 processes: 1, 2");
        assert_eq!(
            subject("data key", &names, 1_000),
            "1000 data keys, such as 1, 2, 3, 4, 5"
        );
    }

    #[test]
    fn codes_have_names_of_their_own() {
        let mut names: Vec<_> = Code::value_variants().iter().map(|code| code.name()).collect();
        assert!(names.contains(&"kek-disabled".to_owned()), "{names:?}");
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        let readme = include_str!("../../README.md");
        for name in names {
            assert!(readme.contains(&format!("`{name}`")), "the README has no {name}");
        }
    }
}
