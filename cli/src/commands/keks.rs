//! `encx keks`: the KEKs that the KEK rule names or that wrap keys.

use anyhow::{Result, anyhow};
use encx::kms::KekRef;
use encx::store::KeyStore;
use serde::Serialize;

use crate::exit::{Exit, Refused};
use crate::keks::{View, describe, views};
use crate::output::{pairs, tell};
use crate::session::Session;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List KEKs: what the KMS reports, and how many versions each wraps
    List,
    /// Check that each KEK answers, is enabled, rotates, and is allowed by the KEK rule; exit 3 if not
    Check,
    /// Check whether a KEK can be removed without losing a key; exit 3 if not
    CanRetire {
        /// The KEK, optionally prefixed with its KMS
        #[arg(value_name = "[KMS:]KEK")]
        kek: String,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<Exit> {
    match command {
        Command::List => {
            let views = views(session).await?;
            write(session, &views)?;
            Ok(match views.iter().any(|view| view.failure.is_some()) {
                true => Exit::Unreachable,
                false => Exit::Done,
            })
        }
        Command::Check => check(session).await,
        Command::CanRetire { kek } => can_retire(session, &kek).await,
    }
}

fn write(session: &Session, views: &[View]) -> Result<()> {
    let header = [
        "KMS", "KEK", "RULE", "STATE", "ROTATION", "NEXT", "VERSIONS", "SOLE",
    ];
    session.output.list(header, views, |view| {
        let rotation = match (view.rotation, view.rotation_days) {
            (Some(true), Some(days)) => format!("{days} days"),
            (Some(true), None) => "on".to_owned(),
            (Some(false), _) => "off".to_owned(),
            (None, _) => "-".to_owned(),
        };
        [
            view.kms.clone(),
            view.alias
                .as_ref()
                .map_or_else(|| view.kek.clone(), |alias| format!("{} ({alias})", view.kek)),
            if view.is_in_rule { "yes" } else { "no" }.to_owned(),
            view.state.to_owned(),
            rotation,
            view.next_rotation.clone().unwrap_or_else(|| "-".to_owned()),
            view.versions.to_string(),
            view.sole.to_string(),
        ]
    })?;
    for view in views {
        if let Some(error) = &view.error {
            tell(&format!("{}:{}: {error}", view.kms, view.kek));
        }
    }
    Ok(())
}

async fn check(session: &Session) -> Result<Exit> {
    #[derive(Serialize)]
    struct Finding {
        finding: String,
    }
    let views = views(session).await?;
    let findings: Vec<_> = views
        .iter()
        .flat_map(View::findings)
        .map(|finding| Finding { finding })
        .collect();
    if findings.is_empty() {
        tell(&format!("all well with {} KEKs", views.len()));
        return Ok(Exit::Done);
    }
    session
        .output
        .list(["FINDING"], &findings, |finding| [finding.finding.clone()])?;
    Ok(
        match views.iter().any(|view| view.failure.is_some() && view.is_in_rule) {
            true => Exit::Unreachable,
            false => Exit::Finding,
        },
    )
}

async fn can_retire(session: &Session, text: &str) -> Result<Exit> {
    #[derive(Serialize)]
    struct Answer {
        kms: String,
        kek: String,
        can_retire: bool,
        versions: u64,
        sole: u64,
        wraps_new_keys: Option<bool>,
    }
    let kek = session.lasting(session.kek(text).await?).await?;
    let used = session.store().await?.keks().await?;
    let used = used
        .iter()
        .find(|used| used.kms == kek.kms && used.kek == kek.kek);
    if used.is_none() {
        // Operators delete a KEK after this answer, so a misspelled name must not pass.
        let (kms, name) = (session.kms().await?, format!("{}:{}", kek.kms, kek.kek));
        describe(kms, &kek).await.map_err(|failure| {
            anyhow!(
                "no version is wrapped by `{name}`, and its KMS does not know it: {}",
                failure.text
            )
        })?;
    }
    let rule = session.manager(None).await?.named_keks();
    // A closure's choice is known only for a given context.
    let mut wraps_new_keys = if rule.by_closure { None } else { Some(false) };
    for wrapping in rule.wrapping {
        if session.lasting(wrapping).await? == kek {
            wraps_new_keys = Some(true);
        }
    }
    let (versions, sole) = used.map_or((0, 0), |used| (used.versions, used.sole));
    let answer = Answer {
        kms: kek.kms.to_string(),
        kek: kek.kek.to_string(),
        can_retire: versions == 0 && wraps_new_keys == Some(false),
        versions,
        sole,
        wraps_new_keys,
    };
    session.output.object(&answer, || {
        let yes_or_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        pairs([
            ("KEK", format!("{}:{}", answer.kms, answer.kek)),
            ("can be retired", yes_or_no(answer.can_retire)),
            ("versions it wraps", answer.versions.to_string()),
            ("of these, by no other KEK", answer.sole.to_string()),
            (
                "wraps new keys",
                answer
                    .wraps_new_keys
                    .map_or_else(|| "not known".to_owned(), yes_or_no),
            ),
        ])
    })?;
    if answer.can_retire {
        tell("as far as the database tells; backups may hold versions that only this KEK unwraps");
        return Ok(Exit::Done);
    }
    match wraps_new_keys {
        Some(true) => tell("the KEK rule has it wrap new keys: name another KEK first"),
        Some(false) => {}
        None => tell("the KEK rule is a function of the application, which may have it wrap new keys"),
    }
    if versions > 0 {
        tell("move its versions first: `encx rewrap`");
    }
    Ok(Exit::Finding)
}

/// Refuses a KEK that the rule does not name.
pub(crate) async fn refuse_unknown(session: &Session, kek: &KekRef) -> Result<()> {
    let rule = session.manager(None).await?.named_keks();
    if rule.by_closure || rule.wrapping.contains(kek) || rule.unwrapping.contains(kek) {
        return Ok(());
    }
    Err(Refused(format!(
        "the KEK rule does not name `{}:{}`: add it to `also_unwrap`, and deploy that to every service before keys are moved to it",
        kek.kms, kek.kek
    ))
    .into())
}
