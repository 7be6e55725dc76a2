//! KEK files: one for each kind of protection, and invalid ones.

use std::fs;

use encx::kms::{DataKey, KekId, KekState, KeyManagementService};
use encx_local::{Argon2Params, LocalKms, Protection};

use super::manifest::{Change, Expected, Kek, KekFileCase, ProtectedBy, unhex};
use super::{
    DEFAULTS_FILE, Golden, KEY, KEY_FILE, OTHER_PASSPHRASE, PASSPHRASE, PASSPHRASE_FILE, PERMISSIONS_FILE,
    Result,
};

impl Golden {
    /// Makes the KEK files but not yet their entries: the database's history changes two of them.
    pub(crate) async fn kek_files(&mut self) -> Result<()> {
        let kms = LocalKms::create(self.folder.join(PASSPHRASE_FILE), cheap_passphrase()).await?;
        let logs = kms.create_kek().await?;
        kms.create_alias("alias/logs", &logs).await?;
        kms.create_alias("alias/Prüfpfad", &logs).await?;
        let retired = kms.create_kek().await?;
        kms.create_alias("alias/archive", &retired).await?;

        let defaults = Protection::passphrase(OTHER_PASSPHRASE);
        LocalKms::create(self.folder.join(DEFAULTS_FILE), defaults).await?;

        let kms = LocalKms::create(self.folder.join(KEY_FILE), key_protection()).await?;
        let second = kms.create_kek().await?;
        kms.set_default_kek(&second).await?;

        let permissions = Protection::insecure_file_permissions_only();
        let kms = LocalKms::create(self.folder.join(PERMISSIONS_FILE), permissions).await?;
        kms.create_alias("alias/app", kms.default_kek().unwrap()).await?;
        Ok(())
    }

    pub(crate) async fn open(&self, file: &str) -> Result<LocalKms> {
        let protection = match file {
            PASSPHRASE_FILE => Protection::passphrase(PASSPHRASE),
            DEFAULTS_FILE => Protection::passphrase(OTHER_PASSPHRASE),
            KEY_FILE => key_protection(),
            _ => Protection::insecure_file_permissions_only(),
        };
        Ok(LocalKms::open(self.folder.join(file), protection).await?)
    }

    pub(crate) async fn describe_kek_file(&mut self, file: &str) -> Result<()> {
        let keks = self.open(file).await?.list_keks().await?;
        let names = |ids: Vec<KekId>| ids.iter().map(ToString::to_string).collect();
        let keks = keks.into_iter().map(|kek| Kek {
            id: kek.kek.to_string(),
            enabled: kek.state == KekState::Enabled,
            default: kek.is_default,
            aliases: names(kek.aliases),
            materials: kek.materials,
        });
        let keks: Vec<_> = keks.collect();
        let opens = |protection: ProtectedBy| kek_file(file, protection, Expected::OpensTo(keks.clone()));
        self.manifest.kek_files.extend(match file {
            PASSPHRASE_FILE => vec![opens(ProtectedBy::Passphrase(PASSPHRASE.into()))],
            DEFAULTS_FILE => vec![opens(ProtectedBy::Passphrase(OTHER_PASSPHRASE.into()))],
            // The same key in each accepted text form.
            KEY_FILE => [
                KEY,
                &KEY.to_uppercase(),
                "Xww8Hwpr5dTyoOHHsZ2DZA5+WtLEuKbxkCNFZ4mrze8=",
                "Xww8Hwpr5dTyoOHHsZ2DZA5-WtLEuKbxkCNFZ4mrze8",
                " Xww8Hwpr5dTyoOHHsZ2DZA5+WtLEuKbxkCNFZ4mrze8\n",
            ]
            .map(|text| opens(ProtectedBy::Key(text.into())))
            .into(),
            _ => vec![opens(ProtectedBy::FilePermissions)],
        });
        Ok(())
    }

    pub(crate) fn refused_kek_files(&mut self) {
        let passphrase = || ProtectedBy::Passphrase(PASSPHRASE.into());
        let key = || ProtectedBy::Key(KEY.into());
        let permissions = || ProtectedBy::FilePermissions;
        let len = |file| usize::try_from(fs::metadata(self.folder.join(file)).unwrap().len()).unwrap();
        let refused = |file: &str, protection, change: Change, mended, code: &str| KekFileCase {
            change: Some(change),
            mend_checksum: mended,
            ..kek_file(file, protection, Expected::RefusedAs(code.into()))
        };
        let unchanged =
            |file: &str, protection, code: &str| kek_file(file, protection, Expected::RefusedAs(code.into()));
        let mut cases = vec![
            unchanged(
                PASSPHRASE_FILE,
                ProtectedBy::Passphrase(OTHER_PASSPHRASE.into()),
                "wrong-passphrase",
            ),
            // Texts that look equal: nothing is normalised.
            unchanged(
                PASSPHRASE_FILE,
                ProtectedBy::Passphrase(PASSPHRASE.replace('ü', "u\u{308}")),
                "wrong-passphrase",
            ),
            unchanged(KEY_FILE, ProtectedBy::Key(KEY.replace("5f", "60")), "wrong-key"),
            unchanged(KEY_FILE, ProtectedBy::Key(KEY[1..].into()), "key-text"),
            unchanged(KEY_FILE, ProtectedBy::Key(KEY.replace('f', "g")), "key-text"),
            unchanged(KEY_FILE, ProtectedBy::Key(String::new()), "key-text"),
            unchanged(
                PASSPHRASE_FILE,
                ProtectedBy::Passphrase(String::new()),
                "key-text",
            ),
            unchanged(PASSPHRASE_FILE, ProtectedBy::Key(String::new()), "protection"),
            refused(
                KEY_FILE,
                key(),
                Change::Extend((16 << 20) + 1),
                false,
                "too-large",
            ),
            unchanged(PASSPHRASE_FILE, key(), "protection"),
            unchanged(KEY_FILE, passphrase(), "protection"),
            unchanged(PERMISSIONS_FILE, passphrase(), "protection"),
            unchanged(KEY_FILE, permissions(), "protection"),
        ];
        for mode in ["0640", "0604", "0601"] {
            let case = unchanged(PERMISSIONS_FILE, permissions(), "permissions");
            cases.push(KekFileCase {
                mode: mode.into(),
                ..case
            });
        }
        for (file, protection) in [
            (PASSPHRASE_FILE, passphrase()),
            (KEY_FILE, key()),
            (PERMISSIONS_FILE, permissions()),
        ] {
            let len = len(file);
            let wrong = match protection {
                ProtectedBy::Passphrase(_) => "wrong-passphrase",
                ProtectedBy::Key(_) => "wrong-key",
                ProtectedBy::FilePermissions => "corrupt",
            };
            let change = |change, mended, code| refused(file, protection.clone(), change, mended, code);
            cases.extend(
                [0, 1, 9, 40, len / 2, len - 1].map(|keep| change(Change::Keep(keep), false, "corrupt")),
            );
            cases.push(change(Change::Append(0), false, "corrupt"));
            cases.extend(
                [0, 8 * 8, 8 * (len / 2), 8 * (len - 1)]
                    .map(|bit| change(Change::FlipBit(bit), false, "corrupt")),
            );
            cases.push(change(Change::Set { at: 8, to: 2 }, true, "unsupported-version"));
            cases.push(change(Change::Set { at: 9, to: 4 }, true, "corrupt"));
            // An attacker who recomputes the checksum, which is no protection.
            cases.push(change(Change::FlipBit(8 * (len - 32 - 1)), true, wrong));
            cases.push(change(
                Change::FlipBit(8 * (len - 32 - 32 - 16 - 1)),
                true,
                "corrupt",
            ));
            cases.push(change(Change::FlipBit(8 * (len - 32 - 32 - 1)), true, "corrupt"));
            cases.push(change(Change::Append(0), true, "corrupt"));
        }
        // The file's id, which is authenticated but does not derive the key.
        for at in [10, 25] {
            let change = Change::FlipBit(8 * at);
            cases.push(refused(KEY_FILE, key(), change, true, "corrupt"));
        }
        // The salt, then Argon2's parameters: another key, or parameters too expensive to compute.
        cases.push(refused(
            PASSPHRASE_FILE,
            passphrase(),
            Change::FlipBit(8 * 22),
            true,
            "wrong-passphrase",
        ));
        cases.push(refused(
            PASSPHRASE_FILE,
            passphrase(),
            Change::Set { at: 17, to: 3 },
            true,
            "wrong-passphrase",
        ));
        for (at, to) in [(10, 1), (17, 0), (17, 17), (21, 0), (21, 17)] {
            cases.push(refused(
                PASSPHRASE_FILE,
                passphrase(),
                Change::Set { at, to },
                true,
                "corrupt",
            ));
        }
        self.manifest.kek_files.extend(cases);
    }
}

pub(crate) fn cheap_passphrase() -> Protection {
    let params = Argon2Params::new(256, 2, 3).unwrap();
    Protection::passphrase_with(PASSPHRASE, params)
}

pub(crate) fn key_protection() -> Protection {
    Protection::key(DataKey::copy_from(&unhex(KEY)).unwrap())
}

pub(crate) fn kek_file(file: &str, protection: ProtectedBy, expect: Expected<Vec<Kek>>) -> KekFileCase {
    KekFileCase {
        file: file.into(),
        protection,
        change: None,
        mend_checksum: false,
        mode: "0600".into(),
        expect,
    }
}
