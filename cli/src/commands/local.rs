//! `encx local`: files of local KEKs.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use encx::kms::KekId;
use encx_local::{LocalKek, LocalKms, Protection};
use serde::Serialize;

use crate::exit::Exit;
use crate::keks::state_name;
use crate::output::{Output, tell};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Create a file with one KEK
    Init {
        #[command(flatten)]
        file: File,
    },
    /// Add a KEK
    AddKek {
        #[command(flatten)]
        file: File,
        /// An alias of the KEK, such as alias/logs
        #[arg(long)]
        alias: Option<String>,
        /// Make it the file's default for services started from now on
        #[arg(long)]
        default: bool,
    },
    /// Give a KEK new material to wrap with; the old material still unwraps
    Rotate {
        #[command(flatten)]
        file: File,
        /// The KEK or its alias [default: the file's default KEK]
        kek: Option<String>,
    },
    /// Protect the file with another passphrase or key
    Passwd {
        #[command(flatten)]
        file: File,
        /// Read the new passphrase from the first line of this file
        #[arg(long, value_name = "FILE", conflicts_with = "new_key_file")]
        new_passphrase_file: Option<PathBuf>,
        /// Read the new key from this file, as 64 hex digits or base64
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
    },
    /// List the KEKs of a file
    Info {
        #[command(flatten)]
        file: File,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct File {
    /// The KEK file
    path: PathBuf,
    /// Read the passphrase from the first line of this file. Without it and --key-file, encx uses the file that
    /// `ENCX_KEK_PASSPHRASE_FILE` or `ENCX_KEK_KEY_FILE` names, or asks
    #[arg(
        long,
        value_name = "FILE",
        env = "ENCX_KEK_PASSPHRASE_FILE",
        conflicts_with = "key_file"
    )]
    passphrase_file: Option<PathBuf>,
    /// Read the key from this file, as 64 hex digits or base64
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl File {
    fn protection(&self, is_new: bool) -> Result<Protection> {
        let (mut passphrase, mut key) = (self.passphrase_file.clone(), self.key_file.clone());
        if passphrase.is_none() && key.is_none() {
            let named = |variable| {
                std::env::var_os(variable)
                    .filter(|name| !name.is_empty())
                    .map(PathBuf::from)
            };
            (passphrase, key) = (named("ENCX_KEK_PASSPHRASE_FILE"), named("ENCX_KEK_KEY_FILE"));
        }
        protection(passphrase.as_deref(), key.as_deref(), "Passphrase", is_new)
    }

    async fn open(&self) -> Result<LocalKms> {
        Ok(LocalKms::open(&self.path, self.protection(false)?).await?)
    }
}

/// Reads the protection from files, or asks for a passphrase: twice for a new one.
fn protection(
    passphrase: Option<&Path>,
    key: Option<&Path>,
    prompt: &str,
    is_new: bool,
) -> Result<Protection> {
    if let Some(key) = key {
        return Ok(Protection::key_from_file(key));
    }
    if let Some(passphrase) = passphrase {
        return Ok(Protection::passphrase_from_file(passphrase));
    }
    if !std::io::stdin().is_terminal() {
        bail!(
            "there is no terminal to ask for the passphrase: name a file with --passphrase-file or --key-file"
        );
    }
    let passphrase = rpassword::prompt_password(format!("{prompt}: "))?;
    if is_new && rpassword::prompt_password(format!("{prompt}, again: "))? != passphrase {
        bail!("the two are not the same; nothing was changed");
    }
    if passphrase.is_empty() {
        bail!("a passphrase is not empty; nothing was changed");
    }
    Ok(Protection::passphrase(passphrase))
}

#[derive(Debug, Serialize)]
struct View {
    kek: String,
    is_default: bool,
    state: &'static str,
    aliases: Vec<String>,
    materials: Vec<String>,
}

impl View {
    fn new(kek: &LocalKek) -> Self {
        Self {
            kek: kek.kek.to_string(),
            is_default: kek.is_default,
            state: state_name(kek.state),
            aliases: kek.aliases.iter().map(ToString::to_string).collect(),
            materials: kek.materials.clone(),
        }
    }
}

pub(crate) async fn run(command: Command, output: Output) -> Result<Exit> {
    match command {
        Command::Init { file } => {
            let kms = LocalKms::create(&file.path, file.protection(true)?).await?;
            info(&kms, output).await?;
            tell(&format!(
                "made {}: back it up, keep the passphrase or key elsewhere, and set ENCX_KMS=local:{}",
                kms.path().display(),
                kms.path().display()
            ));
        }
        Command::AddKek { file, alias, default } => {
            let kms = file.open().await?;
            if let Some(alias) = &alias {
                refuse_taken(&kms, alias).await?;
            }
            let kek = kms.create_kek().await?;
            if let Some(alias) = alias {
                kms.create_alias(&alias, &kek).await?;
            }
            if default {
                kms.set_default_kek(&kek).await?;
            }
            info(&kms, output).await?;
            tell(&format!("made {kek}: back the file up"));
        }
        Command::Rotate { file, kek } => {
            let kms = file.open().await?;
            let kek = match kek {
                Some(kek) => KekId::new(kek)?,
                None => default_of(&kms).await?,
            };
            let material = kms.rotate_kek(&kek).await?;
            info(&kms, output).await?;
            tell(&format!(
                "{kek} wraps with material {material} from now on: back the file up"
            ));
        }
        Command::Passwd {
            file,
            new_passphrase_file,
            new_key_file,
        } => {
            let kms = file.open().await?;
            let (passphrase, key) = (new_passphrase_file.as_deref(), new_key_file.as_deref());
            kms.reprotect(protection(passphrase, key, "New passphrase", true)?)
                .await?;
            tell(
                "done: restart services with the new one; copies of the old file still open with the old one",
            );
        }
        Command::Info { file } => info(&file.open().await?, output).await?,
    }
    Ok(Exit::Done)
}

/// Refuses a taken alias before a KEK is created.
async fn refuse_taken(kms: &LocalKms, alias: &str) -> Result<()> {
    let keks = kms.list_keks().await?;
    let names = |kek: &&LocalKek| kek.aliases.iter().any(|name| name.as_str() == alias);
    match keks.iter().find(names) {
        Some(kek) => bail!(
            "the alias `{alias}` names {} already; nothing was changed: choose another",
            kek.kek
        ),
        None => Ok(()),
    }
}

async fn default_of(kms: &LocalKms) -> Result<KekId> {
    let keks = kms.list_keks().await?;
    match keks.into_iter().find(|kek| kek.is_default) {
        Some(kek) => Ok(kek.kek),
        None => bail!("the file has no default KEK: name one"),
    }
}

async fn info(kms: &LocalKms, output: Output) -> Result<()> {
    let views: Vec<_> = kms.list_keks().await?.iter().map(View::new).collect();
    output.list(
        ["KEK", "DEFAULT", "STATE", "ALIASES", "MATERIALS"],
        &views,
        |view| {
            [
                view.kek.clone(),
                if view.is_default { "yes" } else { "no" }.to_owned(),
                view.state.to_owned(),
                view.aliases.join(" "),
                view.materials.len().to_string(),
            ]
        },
    )
}
