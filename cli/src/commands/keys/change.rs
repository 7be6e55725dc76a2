//! Commands that show or change one key.

use anyhow::Result;
use encx::keys::{DataKeyId, KeyManager, KeyState, KeyUsage};
use encx::store::KeyRecord;
use encx::{EncryptionContext, Error};

use crate::confirm::Change;
use crate::context::{ContextArgs, describe};
use crate::exit::{Exit, Refused};
use crate::output::{Output, pairs, tell};
use crate::record::{KeyView, moment_or_dash, parse_usage};
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Id {
    /// The id of the key version
    pub(crate) id: DataKeyId,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OfVersion {
    #[command(flatten)]
    id: Id,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OfContext {
    #[command(flatten)]
    context: ContextArgs,
    /// The usage of the key: data, index, pepper or stream
    #[arg(long, value_name = "USAGE", default_value = "data", value_parser = parse_usage)]
    usage: KeyUsage,
    #[command(flatten)]
    change: Change,
}

/// A version found by its id, and the manager of its usage.
pub(crate) struct Found {
    pub(crate) record: KeyRecord,
    pub(crate) context: EncryptionContext,
    pub(crate) manager: KeyManager,
}

impl Found {
    /// Finds a version. Refuses a row whose context does not match its scope.
    pub(crate) async fn new(session: &Session, id: &Id, because: Option<&str>) -> Result<Self> {
        let record = find(session, id).await?;
        let context = record.verified_context()?;
        let manager = session.manager(because).await?.for_usage(record.usage);
        Ok(Self {
            record,
            context,
            manager,
        })
    }

    pub(crate) fn name(&self) -> String {
        format!(
            "version {} ({}, {}) of {}",
            self.record.version,
            self.record.usage.name(),
            self.record.state,
            describe(&self.record.context)
        )
    }
}

async fn find(session: &Session, id: &Id) -> Result<KeyRecord> {
    let mut records = session.store().await?.get(&[id.id]).await?;
    records.pop().ok_or_else(|| {
        anyhow::anyhow!(
            "the key store has no version {}: `encx keys list` shows those that it has",
            id.id
        )
    })
}

pub(crate) async fn show(session: &Session, id: &Id) -> Result<Exit> {
    let record = find(session, id).await?;
    let maintenance = session.maintenance().await;
    let due_at = maintenance.and_then(|maintenance| maintenance.due_at(&record));
    write(session.output, &KeyView::new(&record, due_at))?;
    Ok(Exit::Done)
}

pub(crate) async fn create(session: &Session, args: OfContext) -> Result<Exit> {
    let (manager, context) = prepare(session, &args).await?;
    if args.change.dry_run {
        // A dry run refuses what `create` would refuse.
        return match manager.list(&context).await? {
            versions if versions.is_empty() => would("make the first version"),
            _ => Err(Error::AlreadyExists.into()),
        };
    }
    let made = manager.create(&context).await?;
    write(session.output, &KeyView::new(&made, None))?;
    Ok(Exit::Done)
}

pub(crate) async fn rotate(session: &Session, args: OfContext) -> Result<Exit> {
    let (manager, context) = prepare(session, &args).await?;
    if args.change.dry_run {
        let versions = manager.list(&context).await?;
        if versions.is_empty() {
            return Err(Error::NoKeys.into());
        }
        if versions
            .iter()
            .all(|version| version.state == KeyState::Destroyed)
        {
            return Err(Error::Shredded.into());
        }
        return would(&format!(
            "make a version after the {} that there are",
            versions.len()
        ));
    }
    let active = manager.rotate(&context).await?;
    tell(
        "services follow within their state_ttl; `encx rewrap` is not needed, and rows go on being readable",
    );
    write(session.output, &KeyView::new(&active, None))?;
    Ok(Exit::Done)
}

pub(crate) async fn revive(session: &Session, args: OfContext) -> Result<Exit> {
    let (manager, context) = prepare(session, &args).await?;
    if args.change.dry_run {
        let versions = manager.list(&context).await?;
        if versions
            .iter()
            .any(|version| version.state != KeyState::Destroyed)
        {
            return Err(Error::AlreadyExists.into());
        }
        return would("make a new version; what the destroyed ones encrypted stays unreadable");
    }
    let made = manager.revive(&context).await?;
    write(session.output, &KeyView::new(&made, None))?;
    Ok(Exit::Done)
}

pub(crate) async fn suspend(session: &Session, args: OfVersion) -> Result<Exit> {
    let warning = "until it is resumed, nothing that it encrypted can be read";
    set_state(session, args, "suspend", Some(warning), |_| {
        Ok(KeyState::Suspended)
    })
    .await
}

pub(crate) async fn resume(session: &Session, args: OfVersion) -> Result<Exit> {
    set_state(session, args, "resume", None, |record| {
        record
            .suspended_from
            .ok_or_else(|| Refused(format!("this version is {}, not suspended", record.state)))
    })
    .await
}

pub(crate) async fn compromise(session: &Session, args: OfVersion) -> Result<Exit> {
    let warning = "this cannot be taken back, and what it encrypted is read only where a service says `accept_compromised`";
    set_state(session, args, "mark as compromised", Some(warning), |_| {
        Ok(KeyState::Compromised)
    })
    .await
}

async fn set_state(
    session: &Session,
    args: OfVersion,
    verb: &str,
    warning: Option<&str>,
    state: impl FnOnce(&KeyRecord) -> Result<KeyState, Refused>,
) -> Result<Exit> {
    let found = Found::new(session, &args.id, args.change.because.as_deref()).await?;
    let to = state(&found.record)?;
    let what = format!("{verb} {}", found.name());
    if !found.record.state.may_become(to, found.record.suspended_from) {
        return Err(Refused(format!("cannot {what}: it is {}", found.record.state)).into());
    }
    if args.change.dry_run {
        return would(&what);
    }
    if let Some(warning) = warning {
        args.change.confirm(&format!("{what}; {warning}"))?;
    }
    let changed = found
        .manager
        .set_state(&found.context, found.record.id, to)
        .await?;
    write(session.output, &KeyView::new(&changed, None))?;
    Ok(Exit::Done)
}

async fn prepare(session: &Session, args: &OfContext) -> Result<(KeyManager, EncryptionContext)> {
    let context = args.context.context()?;
    let manager = session.manager(args.change.because.as_deref()).await?;
    Ok((manager.for_usage(args.usage), context))
}

/// Prints what a dry run would do.
pub(crate) fn would(what: &str) -> Result<Exit> {
    tell(&format!("would {what}"));
    Ok(Exit::Done)
}

pub(crate) fn write(output: Output, view: &KeyView) -> Result<()> {
    output.object(view, || {
        let state = match view.suspended_from {
            Some(from) => format!("{} (was {from})", view.state),
            None => view.state.to_owned(),
        };
        let keks = view.keks.iter().map(|wrap| {
            let material = wrap
                .material
                .as_ref()
                .map(|material| format!(", material {material}"));
            (
                "KEK",
                format!("{}:{}{}", wrap.kms, wrap.kek, material.unwrap_or_default()),
            )
        });
        let fields = [
            ("id", view.id.clone()),
            ("usage", view.usage.to_owned()),
            ("version", view.version.to_string()),
            ("state", state),
            ("context", view.context()),
        ];
        let moments = [
            ("made at", Some(&view.created_at)),
            ("active since", view.activated_at.as_ref()),
            ("deactivated at", view.deactivated_at.as_ref()),
            ("destroyed at", view.destroyed_at.as_ref()),
            ("changed at", Some(&view.changed_at)),
            ("due at", view.due_at.as_ref()),
        ];
        let moments = moments
            .into_iter()
            .filter(|(_, at)| at.is_some())
            .map(|(name, at)| (name, moment_or_dash(at)));
        pairs(fields.into_iter().chain(keks).chain(moments))
    })
}
