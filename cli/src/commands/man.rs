//! `encx man`: manual pages.

use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write one page per command into this folder, instead of the main page to stdout
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, program: clap::Command) -> Result<Exit> {
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("could not make {}", dir.display()))?;
            clap_mangen::generate_to(program, dir)
                .with_context(|| format!("could not write pages to {}", dir.display()))?;
        }
        None => clap_mangen::Man::new(program).render(&mut io::stdout().lock())?,
    }
    Ok(Exit::Done)
}
