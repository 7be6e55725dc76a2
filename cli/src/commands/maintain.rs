//! `encx maintain`: scheduled rotation, once or as a daemon.

use std::time::Duration;

use anyhow::Result;
use encx::keys::{Maintenance, MaintenanceReport};
use serde_json::json;

use crate::exit::Exit;
use crate::output::{Output, tell};
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rotate what is due and exit, as for cron
    #[arg(long)]
    once: bool,
    /// List what is due and change nothing, as `encx keys needs-rotation`
    #[arg(long, requires = "once")]
    dry_run: bool,
    /// The reason for the audit log
    #[arg(long, value_name = "REASON", default_value = "encx maintain")]
    because: String,
    /// Look for due keys at this interval instead of the configured one
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "once")]
    interval: Option<Duration>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let manager = session.manager(Some(&args.because)).await?;
    let maintenance = session.settings.maintenance(manager);
    if args.dry_run {
        let due = maintenance.due(0).await?.versions;
        return super::keys::would(&format!("rotate {due}: see `encx keys list --due`"));
    }
    if args.once {
        let report = maintenance.run_once().await?;
        return write(session.output, &report);
    }
    let maintenance = match args.interval {
        Some(interval) => maintenance.interval(interval),
        None => maintenance,
    };
    serve(maintenance).await
}

/// Runs until Ctrl-C or SIGTERM, then releases the lease. The next run promotes published versions.
async fn serve(maintenance: Maintenance) -> Result<Exit> {
    // The task reports through events. An application may have its own subscriber.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init()
        .ok();
    let task = maintenance.spawn()?;
    tell("rotating what is due, until Ctrl-C or SIGTERM");
    told_to_end().await;
    tell("ending, as told");
    task.stop().await;
    Ok(Exit::Done)
}

/// Waits for Ctrl-C or SIGTERM.
async fn told_to_end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

fn write(output: Output, report: &MaintenanceReport) -> Result<Exit> {
    let (published, promoted) = (report.published.len(), report.promoted.len());
    for failed in &report.failed {
        tell(&format!("data key {}: {}", failed.id, failed.error));
    }
    if output.is_json() {
        let ids = |ids: &[encx::keys::DataKeyId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let failed: Vec<_> = report
            .failed
            .iter()
            .map(|failed| json!({ "id": failed.id.to_string(), "error": failed.error.to_string() }))
            .collect();
        output.text(
            &json!({
                "published": ids(&report.published),
                "promoted": ids(&report.promoted),
                "failed": failed,
                "held_elsewhere": report.held_elsewhere,
                "stopped": report.stopped.as_ref().map(ToString::to_string),
            })
            .to_string(),
        )?;
    } else if report.held_elsewhere {
        output.text("another process is rotating")?;
    } else {
        output.text(&format!(
            "{published} made, {promoted} promoted, {} failed",
            report.failed.len()
        ))?;
    }
    Ok(match (&report.stopped, report.failed.is_empty()) {
        (Some(error), _) => {
            tell(&format!("ended early: {error}"));
            Exit::of_encx(error)
        }
        (None, false) => Exit::Finding,
        (None, true) => Exit::Done,
    })
}
