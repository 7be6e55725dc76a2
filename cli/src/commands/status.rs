//! `encx status`: KMSs, keys, processes, due rotations and cost.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use encx::Crypto;
use encx::ops::{Reported, Status, StatusOptions};

use crate::exit::Exit;
use crate::keks::state_name;
use crate::output::{columns, pairs, printable};
use crate::record::moment;
use crate::session::{Session, own_name};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show the status at this interval [default: 5s] until Ctrl-C
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "5s", value_parser = parse_interval)]
    watch: Option<Duration>,
    /// Show usage and cost for this many days
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=400))]
    days: u32,
}

/// Parses the interval. Each status calls the KMS of every KEK and counts in the key store.
fn parse_interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval >= Duration::from_secs(1) => Ok(interval),
        Ok(_) => Err("write a second or more".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let crypto = session.crypto().await?;
    let shown = show(session, &args, &crypto).await;
    // After a failure too: `keys destroy` waits for processes that did not sign off.
    crypto.shutdown().await;
    shown
}

async fn show(session: &Session, args: &Args, crypto: &Crypto) -> Result<Exit> {
    let maintenance = session.settings.maintenance(crypto.key_manager());
    let options = StatusOptions::new().due_by(&maintenance).days(args.days);
    let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let mut status = tokio::select! {
            status = crypto.status(&options) => status,
            _ = &mut ended => return Ok(Exit::Interrupted),
        };
        if let Reported::Known(processes) = &mut status.processes {
            // This process has exited when its entry is read.
            processes.retain(|process| process.name != own_name());
        }
        if args.watch.is_some() && !session.output.is_json() && std::io::stdout().is_terminal() {
            // Clears the screen, as `watch` does.
            session.output.text("\u{1b}[H\u{1b}[2J")?;
        }
        session.output.object(&status, || table(&status))?;
        let Some(every) = args.watch else {
            return Ok(exit_of(&status));
        };
        tokio::select! {
            _ = &mut ended => return Ok(Exit::Interrupted),
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// A part is unknown only if a KMS or the key store failed.
fn exit_of(status: &Status) -> Exit {
    let keks = status.kms.iter().flat_map(|kms| &kms.keks);
    let failed = matches!(status.versions, Reported::Failed { .. })
        || matches!(status.due, Reported::Failed { .. })
        || matches!(status.processes, Reported::Failed { .. })
        || keks
            .into_iter()
            .any(|kek| matches!(kek.description, Reported::Failed { .. }));
    if failed { Exit::Unreachable } else { Exit::Done }
}

fn table(status: &Status) -> String {
    let parts = [
        ("KEKs", keks(status)),
        (
            "KEYS",
            told(&status.versions, |known| versions(known)) + &unreadable(status),
        ),
        ("DUE", told(&status.due, due)),
        ("PROCESSES", told(&status.processes, |known| processes(known))),
        ("USE BY DAY", told(&status.days, |known| days(known))),
        ("COST", told(&status.cost, cost)),
    ];
    let parts: Vec<_> = parts
        .into_iter()
        .map(|(title, text)| {
            let lines: Vec<_> = text.lines().map(|line| format!("  {line}")).collect();
            format!("{title}\n{}", lines.join("\n"))
        })
        .collect();
    parts.join("\n\n")
}

fn told<T>(reported: &Reported<T>, show: impl FnOnce(&T) -> String) -> String {
    match reported {
        Reported::Known(known) => show(known),
        Reported::Failed { error } => format!("unknown: {}", printable(error)),
        _ => "not recorded".to_owned(),
    }
}

fn keks(status: &Status) -> String {
    let header = ["KMS", "PROVIDER", "KEK", "STATE", "ROTATION", "NEXT ROTATION"];
    let rows = status.kms.iter().flat_map(|kms| {
        kms.keks.iter().map(|kek| {
            let (state, rotation, next) = match &kek.description {
                Reported::Known(described) => (
                    state_name(described.state).to_owned(),
                    match (described.rotation, described.rotation_days) {
                        (Some(true), Some(days)) => format!("{days} days"),
                        (Some(true), None) => "on".to_owned(),
                        (Some(false), _) => "off".to_owned(),
                        (None, _) => "-".to_owned(),
                    },
                    described.next_rotation.map_or_else(|| "-".to_owned(), moment),
                ),
                Reported::Failed { error } => (error.clone(), "-".to_owned(), "-".to_owned()),
                _ => ("unknown".to_owned(), "-".to_owned(), "-".to_owned()),
            };
            let (kms_name, provider) = (kms.kms.to_string(), kms.provider.to_owned());
            [kms_name, provider, kek.name.to_string(), state, rotation, next]
        })
    });
    columns(Some(header), rows)
}

fn versions(versions: &[encx::ops::VersionsStatus]) -> String {
    if versions.is_empty() {
        return "none".to_owned();
    }
    let rows = versions.iter().map(|of| {
        let oldest = of.oldest_activated_at.map_or_else(|| "-".to_owned(), moment);
        [
            of.usage.name().to_owned(),
            of.state.to_string(),
            of.versions.to_string(),
            oldest,
        ]
    });
    columns(Some(["USAGE", "STATE", "VERSIONS", "OLDEST ACTIVE SINCE"]), rows)
}

/// Reports edited rows.
fn unreadable(status: &Status) -> String {
    match status.unreadable_versions.known() {
        None | Some(0) => String::new(),
        Some(rows) => {
            format!("\n{rows} more rows were edited: encx knows neither their usage nor their state")
        }
    }
}

fn due(due: &encx::ops::DueStatus) -> String {
    let advice = if due.versions > 0 {
        ": `encx maintain --once`"
    } else {
        ""
    };
    let unreadable = match due.unreadable {
        0 => String::new(),
        rows => format!("; {rows} rows do not say what they are for"),
    };
    format!("{} versions{advice}{unreadable}", due.versions)
}

fn processes(processes: &[encx::ops::ProcessStatus]) -> String {
    if processes.is_empty() {
        return "none".to_owned();
    }
    let rows = processes.iter().map(|process| {
        [
            process.name.clone(),
            moment(process.started_at),
            moment(process.seen_at),
        ]
    });
    columns(Some(["NAME", "SINCE", "LAST HEARD OF"]), rows)
}

fn days(days: &[encx::ops::DayStatus]) -> String {
    if days.is_empty() {
        return "none yet".to_owned();
    }
    let rows = days.iter().map(|of| {
        let day = moment(of.day);
        let counts = [
            of.encrypts,
            of.decrypts,
            of.refusals,
            of.kms_calls,
            of.kms_failures,
        ]
        .map(|count| count.to_string());
        let [encrypts, decrypts, refusals, kms_calls, kms_failures] = counts;
        let day = day.split('T').next().unwrap_or(&day).to_owned();
        [day, encrypts, decrypts, refusals, kms_calls, kms_failures]
    });
    columns(
        Some([
            "DAY",
            "ENCRYPTED",
            "DECRYPTED",
            "REFUSED",
            "KMS CALLS",
            "OF THESE FAILED",
        ]),
        rows,
    )
}

fn cost(cost: &encx::ops::CostEstimate) -> String {
    pairs([
        ("USD a month", format!("{:.2}", cost.usd_per_month)),
        ("for calls", format!("{:.2}", cost.calls_usd)),
        ("for KEKs", format!("{:.2}", cost.keks_usd)),
        ("days counted", cost.days.to_string()),
    ])
}
