//! Migration logic shared by both databases: numbering and compatibility.
//!
//! sqlx's own migrator is unsuitable: it locks with session state, which a transaction pooler loses, and is meant for
//! the user's tables.
//!
//! During an update, processes of the old and the new library use the same tables. So a migration records the oldest
//! library version that still works with its tables. Libraries from that version on continue; older ones refuse.

use encx_core::store::StoreError;

/// A migration step, and whether it has run. From `migrations` of a key store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationStep {
    /// Its number, from 1.
    pub version: i64,
    /// What it adds, in a word, such as `keys`.
    pub name: &'static str,
    /// Whether it has run.
    pub is_applied: bool,
    /// A script that runs the step and records it in a transaction, for an administrator to run manually. Scripts are
    /// run in the order of their numbers.
    pub sql: String,
}

/// A migration step.
pub(crate) struct Migration {
    pub(crate) version: i64,
    /// What it adds, in a word.
    pub(crate) name: &'static str,
    /// The oldest version whose library works with these tables: its own, unless it only adds to the previous tables.
    pub(crate) compatible_from: i64,
    pub(crate) text: &'static str,
}

/// Since this migration, the tables record the libraries that work with them.
const TELLS_COMPATIBLE: i64 = 2;

impl Migration {
    /// Describes the step, recorded in `table`, for a database that starts transactions with `begin`.
    pub(crate) fn step(&self, found: Found, begin: &str, table: &str) -> MigrationStep {
        let Self {
            version,
            name,
            compatible_from,
            text,
        } = self;
        let text = text.trim_end();
        let mut sql = format!("{begin};\n{text}\nINSERT INTO {table} (version) VALUES ({version});\n");
        if *version >= TELLS_COMPATIBLE {
            sql.push_str(&format!(
                "UPDATE {table} SET compatible_from = {compatible_from} WHERE version = {version};\n"
            ));
        }
        sql.push_str("COMMIT;\n");
        MigrationStep {
            version: *version,
            name,
            is_applied: *version <= found.version,
            sql,
        }
    }
}

/// The state recorded in the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The last migration that has run, 0 if none has.
    pub(crate) version: i64,
    /// The oldest version whose library works with the tables.
    pub(crate) compatible_from: i64,
}

impl Found {
    /// No tables.
    pub(crate) const NOTHING: Self = Self {
        version: 0,
        compatible_from: 0,
    };

    /// Checks that a library whose last migration is `current` works with these tables.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotMigrated`] if they are missing or older, or newer and incompatible. It says what to do.
    pub(crate) fn check(self, current: i64) -> Result<(), StoreError> {
        if !self.is_behind(current)? {
            return Ok(());
        }
        let found = match self.version {
            ..1 => "no tables".to_owned(),
            version => format!("version {version}, older than this library's {current}"),
        };
        Err(StoreError::NotMigrated { found })
    }

    /// Tells whether migrations up to `current` have to run.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotMigrated`] if the tables are newer and incompatible.
    pub(crate) fn is_behind(self, current: i64) -> Result<bool, StoreError> {
        let version = self.version;
        if version > current && self.compatible_from > current {
            let found = format!("version {version}, newer than this library's {current}: update the library");
            return Err(StoreError::NotMigrated { found });
        }
        Ok(version < current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(version: i64, compatible_from: i64) -> Found {
        Found {
            version,
            compatible_from,
        }
    }

    #[test]
    fn newer_tables_are_used_if_they_say_that_they_may_be() {
        assert!(Found::NOTHING.is_behind(2).unwrap());
        assert!(found(1, 1).is_behind(2).unwrap());
        for fitting in [found(2, 1), found(3, 1), found(9, 2)] {
            assert!(!fitting.is_behind(2).unwrap(), "{fitting:?}");
            fitting.check(2).unwrap();
        }
        for (unfit, says) in [
            (Found::NOTHING, "no tables"),
            (found(1, 1), "older"),
            (found(3, 3), "update the library"),
        ] {
            match unfit.check(2) {
                Err(StoreError::NotMigrated { found }) => assert!(found.contains(says), "{found}"),
                other => panic!("{unfit:?} gave {other:?}"),
            }
        }
        assert!(found(3, 3).is_behind(2).is_err());
    }
}
