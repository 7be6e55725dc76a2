//! Follows a job: a progress line on stderr, or JSON events. Ctrl-C stops it in order.

use std::io::IsTerminal;

use anyhow::Result;
use encx::jobs::{JobEnd, JobEvent, JobReport, JobRun};
use encx::store::{JobFaults, JobTally};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::{Output, tell};

/// Failures printed as text; the rest only as JSON.
const TOLD: u64 = 20;

/// The work of a job, for progress output.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    /// The work, such as `opening rows`.
    pub(crate) what: String,
    /// The column, if the work is on one.
    pub(crate) column: Option<String>,
    /// Estimated number of items.
    pub(crate) total: Option<u64>,
    /// Whether to print failures and write the report. Otherwise the caller does.
    pub(crate) tells: bool,
}

/// Runs a job to its end and writes its report.
pub(crate) async fn follow(output: Output, what: &str, run: JobRun) -> Result<JobReport> {
    let work = Work {
        what: what.to_owned(),
        column: None,
        total: None,
        tells: true,
    };
    follow_work(output, &work, run).await
}

/// Runs a job to its end, with a progress bar for a known total.
pub(crate) async fn follow_work(output: Output, work: &Work, mut run: JobRun) -> Result<JobReport> {
    let bar = bar(work);
    let stopper = run.stopper();
    let stopping = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            tell("stopping: what is in hand is finished first; press Ctrl-C again to end at once");
            stopper.stop();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        }
    });
    let (mut failed_to_write, mut failed, mut before) = (None, 0, 0);
    while let Some(event) = run.next_event().await {
        match &event {
            JobEvent::Started { run } => {
                before = items(run);
                bar.set_position(before);
                // The rate is that of this run.
                bar.reset_eta();
            }
            JobEvent::RangeDone { worker, .. } => {
                let done = before + items(worker);
                // The total is an estimate.
                if bar.length().is_some_and(|total| total < done) {
                    bar.set_length(done);
                }
                bar.set_position(done);
            }
            JobEvent::ItemFailed(failure) if work.tells => {
                failed += 1;
                match failed {
                    ..=TOLD => bar.suspend(|| tell(&failure.to_string())),
                    _ if failed == TOLD + 1 => {
                        bar.suspend(|| tell("more failed; --format json lists all"));
                    }
                    _ => {}
                }
            }
            JobEvent::Retrying { error } => bar.suspend(|| tell(&format!("trying again: {error}"))),
            _ => {}
        }
        let line = output.is_json().then(|| event_json(work, &event)).flatten();
        if let Some(Err(error)) = line.map(|line| output.text(&line.to_string())) {
            // Stops the job in order, so that its progress is recorded.
            failed_to_write.get_or_insert(error);
            run.stopper().stop();
        }
    }
    stopping.abort();
    bar.finish_and_clear();
    let report = run.report().await;
    if let Some(error) = failed_to_write {
        return Err(error);
    }
    if work.tells {
        output_report(output, work, &report)?;
    }
    Ok(report)
}

/// Maps a report to an exit code.
pub(crate) fn exit_of(report: &JobReport) -> Exit {
    match &report.ended_by {
        JobEnd::Stopped => Exit::Interrupted,
        JobEnd::GaveUp(error) => Exit::of_job(error).unwrap_or(Exit::Unreachable),
        _ if report.is_complete() => Exit::Done,
        _ if failed_by_servers(&report.faults) => Exit::Unreachable,
        _ => Exit::Finding,
    }
}

/// Tells whether items failed because the KMS or the key store did.
pub(crate) fn failed_by_servers(faults: &JobFaults) -> bool {
    faults.get("kms").is_some() || faults.get("store").is_some()
}

fn items(tally: &JobTally) -> u64 {
    tally.changed + tally.unchanged + tally.failed
}

fn output_report(output: Output, work: &Work, report: &JobReport) -> Result<()> {
    if output.is_json() {
        let mut line = named(work, "report", tally(&report.run));
        line["is_complete"] = report.is_complete().into();
        line["ended_by"] = ended_by(&report.ended_by).into();
        return output.text(&line.to_string());
    }
    let text = report.to_string();
    // Failures were printed when they happened.
    let line = text.lines().next().unwrap_or_default();
    let column = work
        .column
        .as_ref()
        .map_or(String::new(), |column| format!("{column}: "));
    output.text(&crate::output::printable(&format!("{column}{line}")))
}

fn event_json(work: &Work, event: &JobEvent) -> Option<Value> {
    Some(match event {
        JobEvent::Started { run } => with_total(work, named(work, "started", tally(run))),
        JobEvent::RangeDone { worker, .. } => with_total(work, named(work, "progress", tally(worker))),
        JobEvent::ItemFailed(failure) => {
            let (what, error) = (&failure.what, failure.error.to_string());
            let kind = failure.error.kind();
            named(
                work,
                "failed",
                json!({ "what": what, "kind": kind, "error": error }),
            )
        }
        JobEvent::Retrying { error } => named(work, "retrying", json!({ "error": error.to_string() })),
        JobEvent::Waiting => named(work, "waiting", json!({})),
        _ => return None,
    })
}

fn named(work: &Work, name: &str, mut value: Value) -> Value {
    value["event"] = name.into();
    if let Some(column) = &work.column {
        value["column"] = column.as_str().into();
    }
    value
}

fn with_total(work: &Work, mut value: Value) -> Value {
    if let Some(total) = work.total {
        value["total"] = total.into();
    }
    value
}

fn tally(tally: &JobTally) -> Value {
    json!({ "changed": tally.changed, "unchanged": tally.unchanged, "failed": tally.failed })
}

fn ended_by(end: &JobEnd) -> String {
    match end {
        JobEnd::BegunAgain => "begun again".to_owned(),
        JobEnd::Finished => "finished".to_owned(),
        JobEnd::GaveUp(error) => format!("gave up: {error}"),
        JobEnd::Replaced => "replaced".to_owned(),
        JobEnd::Stopped => "stopped".to_owned(),
        _ => "ended".to_owned(),
    }
}

/// A progress bar if stderr is a terminal, with the time left if the total is known.
fn bar(work: &Work) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match work.total {
        Some(total) => (
            ProgressBar::new(total),
            "{spinner} {msg} [{bar:30}] {pos} of about {len} ({per_sec}, {eta} left)",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {msg}: {pos} ({per_sec}, {elapsed})",
        ),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    let column = work
        .column
        .as_ref()
        .map_or(String::new(), |column| format!(" of {column}"));
    bar.set_message(crate::output::printable(&format!("{}{column}", work.what)));
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}
