//! `encx rewrap`: moves all keys to other KEKs.

use anyhow::Result;
use encx::keys::KeyUsage;

use crate::commands::keks::refuse_unknown;
use crate::confirm::Change;
use crate::exit::Exit;
use crate::progress::{exit_of, follow};
use crate::record::parse_usage;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Move keys to this KEK instead of the one that the KEK rule chooses; the rule must allow it
    #[arg(long, value_name = "[KMS:]KEK")]
    to: Option<String>,
    /// Move only keys wrapped by this KEK
    #[arg(long, value_name = "[KMS:]KEK")]
    from: Option<String>,
    /// Move only keys of this usage
    #[arg(long, value_name = "USAGE", value_parser = parse_usage)]
    usage: Option<KeyUsage>,
    /// Move at most this many keys per second
    #[arg(long, value_name = "KEYS", value_parser = clap::value_parser!(u32).range(1..))]
    throttle: Option<u32>,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let mut builder = session.builder().await?;
    if let Some(to) = &args.to {
        let to = session.kek(to).await?;
        refuse_unknown(session, &to).await?;
        builder = builder.wrap_with(to);
    }
    let mut manager = builder.build_key_manager()?;
    if let Some(reason) = &args.change.because {
        manager = manager.because(reason);
    }
    let mut job = manager.rewrap_all();
    if let Some(from) = &args.from {
        job = job.from(session.kek(from).await?);
    }
    if let Some(usage) = args.usage {
        job = job.usage(usage);
    }
    if let Some(throttle) = args.throttle {
        job = job.throttle(throttle);
    }
    if args.change.dry_run {
        job = job.dry_run();
    }
    let report = follow(session.output, "moving keys", job.start()).await?;
    Ok(exit_of(&report))
}
