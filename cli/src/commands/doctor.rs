//! `encx doctor`: finds faults of a setup and says what to do.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::doctor::{Check, Code, Finding, Options, count_of, examine};
use crate::exit::Exit;
use crate::output::{columns, printable, tell};
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Check all versions instead of a sample (one KMS call per wrap), and a whole SQLite file
    #[arg(long)]
    deep: bool,
    /// Check that versions listed in these receipts of `encx shred` are still destroyed, as after a restore
    #[arg(long, value_name = "DIR")]
    receipts: Option<PathBuf>,
    /// Do not count findings with this code; repeatable
    #[arg(long, value_name = "CODE", hide_possible_values = true)]
    accept: Vec<Code>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let options = Options {
        deep: args.deep,
        receipts: args.receipts,
    };
    let mut checks = Box::pin(examine(session, &options)).await?;
    for finding in checks.iter_mut().flat_map(|check| &mut check.findings) {
        finding.accepted = args.accept.contains(&finding.code);
    }
    let report = Report::new(&checks);
    session.output.object(&report, || table(&checks))?;
    let not_checked = checks.iter().map(|check| check.not_checked.len()).sum::<usize>();
    if not_checked > 0 {
        let things = count_of(not_checked, "thing");
        tell(&format!("{things} could not be checked: the list says why"));
    }
    Ok(match report.findings {
        0 => {
            tell("no finding");
            Exit::Done
        }
        count => {
            tell(&count_of(count, "finding"));
            Exit::Finding
        }
    })
}

#[derive(Serialize)]
struct Report<'c> {
    checks: &'c [Check],
    /// Number of findings that count.
    findings: usize,
}

impl<'c> Report<'c> {
    fn new(checks: &'c [Check]) -> Self {
        let findings = checks.iter().flat_map(|check| &check.findings);
        Self {
            checks,
            findings: findings.filter(|finding| !finding.accepted).count(),
        }
    }
}

fn table(checks: &[Check]) -> String {
    let rows = checks
        .iter()
        .map(|check| [check.name.to_owned(), result_of(check)]);
    let mut parts = vec![columns(Some(["CHECK", "RESULT"]), rows)];
    let mut findings: Vec<_> = checks.iter().flat_map(|check| &check.findings).collect();
    findings.sort_by_key(|finding| (finding.accepted, finding.severity));
    parts.extend(findings.into_iter().map(block));
    parts.join("\n\n")
}

fn result_of(check: &Check) -> String {
    let findings = match check.findings.len() {
        0 => None,
        count => Some(count_of(count, "finding")),
    };
    let not_checked = match check.not_checked.as_slice() {
        [] => None,
        why => Some(format!("not checked: {}", why.join("; "))),
    };
    match (findings, not_checked) {
        (None, None) => "OK".to_owned(),
        (findings, not_checked) => {
            let parts: Vec<_> = findings.into_iter().chain(not_checked).collect();
            parts.join("; ")
        }
    }
}

/// Formats a finding as text.
fn block(finding: &Finding) -> String {
    let severity = match finding.accepted {
        true => "accepted",
        false => finding.severity.name(),
    };
    let line = |text: &str| printable(text).replace('\n', "\n  ");
    format!(
        "{severity}: {}: {}\n  {}\n  {}",
        finding.code.name(),
        line(&finding.subject),
        line(&finding.what),
        line(&finding.remedy)
    )
}
