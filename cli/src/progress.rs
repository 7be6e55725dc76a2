//! Following a job: a line on stderr for people, events as JSON for programs; Ctrl-C stops it in order.

use std::io::IsTerminal;

use anyhow::Result;
use encx::jobs::{JobEnd, JobEvent, JobReport, JobRun};
use encx::store::JobTally;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::output::{Output, tell};

/// How many failures are told to people.
const TOLD: u64 = 20;

/// Runs a job to its end, and writes its report.
pub(crate) async fn follow(output: Output, what: &'static str, mut run: JobRun) -> Result<JobReport> {
    let bar = bar(what);
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
    let (mut failed_to_write, mut failed) = (None, 0);
    while let Some(event) = run.next_event().await {
        if let JobEvent::RangeDone { worker, .. } = &event {
            bar.set_position(worker.changed + worker.unchanged + worker.failed);
        }
        if let JobEvent::ItemFailed(failure) = &event {
            failed += 1;
            match failed {
                ..=TOLD => bar.suspend(|| tell(&failure.to_string())),
                _ if failed == TOLD + 1 => bar.suspend(|| tell("more failed; --format json lists all")),
                _ => {}
            }
        }
        if let JobEvent::Retrying { error } = &event {
            bar.suspend(|| tell(&format!("trying again: {error}")));
        }
        let line = output.is_json().then(|| event_json(&event)).flatten();
        if let Some(Err(error)) = line.map(|line| output.text(&line.to_string())) {
            // The job goes on to its end: what is done is done in order.
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
    output_report(output, &report)?;
    Ok(report)
}

fn output_report(output: Output, report: &JobReport) -> Result<()> {
    if output.is_json() {
        let mut line = tally(&report.run);
        line["event"] = "report".into();
        line["is_complete"] = report.is_complete().into();
        line["ended_by"] = ended_by(&report.ended_by).into();
        return output.text(&line.to_string());
    }
    let text = report.to_string();
    // Failures were told when they happened.
    output.text(&crate::output::printable(text.lines().next().unwrap_or_default()))
}

fn event_json(event: &JobEvent) -> Option<Value> {
    Some(match event {
        JobEvent::Started { run } => named("started", tally(run)),
        JobEvent::RangeDone { worker, .. } => named("progress", tally(worker)),
        JobEvent::ItemFailed(failure) => {
            json!({ "event": "failed", "what": failure.what, "error": failure.error.to_string() })
        }
        JobEvent::Retrying { error } => json!({ "event": "retrying", "error": error.to_string() }),
        JobEvent::Waiting => json!({ "event": "waiting" }),
        _ => return None,
    })
}

fn named(name: &str, mut value: Value) -> Value {
    value["event"] = name.into();
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

/// A line that counts, where stderr is a terminal.
fn bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}: {pos} ({per_sec}, {elapsed})") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}
