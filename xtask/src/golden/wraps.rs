//! Wrapped keys, and invalid ones.

use std::fs;

use encx::keys::{DataKeyId, KeyUsage};
use encx::kms::{DataKey, KekId, KeyManagementService, KmsContext};
use encx_local::LocalKms;

use super::manifest::{Change, Expected, WrapCase, hex};
use super::{
    DEFAULTS_FILE, EIGHT, Golden, KEY_FILE, OTHER_TENANT, PASSPHRASE_FILE, PERMISSIONS_FILE, PII, Pairs,
    Result, UNICODE, map, own, pairs,
};

impl Golden {
    pub(crate) async fn wraps(&mut self) -> Result<()> {
        for file in [PASSPHRASE_FILE, DEFAULTS_FILE, KEY_FILE, PERMISSIONS_FILE] {
            let kms = self.open(file).await?;
            let kek = kms.default_kek().unwrap().clone();
            let name = file.trim_start_matches("keks-").trim_end_matches(".encx");
            self.wrap(&kms, file, &kek, &format!("wrap-{name}.bin"), PII, KeyUsage::Data)
                .await?;
        }
        let kms = self.open(PASSPHRASE_FILE).await?;
        let logs = kms.describe_kek(&KekId::new("alias/logs")?).await?.kek;
        for usage in KeyUsage::ALL {
            let file = format!("wrap-usage-{usage}.bin");
            self.wrap(&kms, PASSPHRASE_FILE, &logs, &file, UNICODE, usage)
                .await?;
        }
        // One KEK's wraps before and after its material was rotated.
        let permissions = self.open(PERMISSIONS_FILE).await?;
        let kek = permissions.default_kek().unwrap().clone();
        self.wrap(
            &permissions,
            PERMISSIONS_FILE,
            &kek,
            "wrap-old-material.bin",
            EIGHT,
            KeyUsage::Data,
        )
        .await?;
        permissions.rotate_kek(&kek).await?;
        permissions.rotate_kek(&kek).await?;
        self.wrap(
            &permissions,
            PERMISSIONS_FILE,
            &kek,
            "wrap-new-material.bin",
            EIGHT,
            KeyUsage::Data,
        )
        .await?;
        self.manifest
            .kek_files
            .retain(|case| case.file != PERMISSIONS_FILE || !matches!(case.expect, Expected::OpensTo(_)));
        self.describe_kek_file(PERMISSIONS_FILE).await?;

        // Wrapped while its KEK was enabled; the file was saved with the KEK disabled.
        let archive = kms.describe_kek(&KekId::new("alias/archive")?).await?.kek;
        kms.enable_kek(&archive).await?;
        self.wrap(
            &kms,
            PASSPHRASE_FILE,
            &archive,
            "wrap-disabled.bin",
            PII,
            KeyUsage::Data,
        )
        .await?;
        kms.disable_kek(&archive).await?;
        let disabled = self.manifest.wraps.last_mut().unwrap();
        disabled.expect = Expected::RefusedAs("kek-disabled".into());

        self.refused_wraps(&logs);
        Ok(())
    }

    async fn wrap(
        &mut self,
        kms: &LocalKms,
        kek_file: &str,
        kek: &KekId,
        file: &str,
        context: Pairs,
        usage: KeyUsage,
    ) -> Result<()> {
        let id = DataKeyId::generate(1_800_000_000_000, None)?;
        let key = DataKey::generate()?;
        let wrapped = kms
            .wrap_key(kek, &key, &KmsContext::new(&pairs(context), usage, id))
            .await?;
        fs::write(self.folder.join(file), &wrapped.ciphertext)?;
        self.manifest.wraps.push(WrapCase {
            file: file.into(),
            kek_file: kek_file.into(),
            kek: wrapped.kek.to_string(),
            context: map(context),
            usage: usage.name().into(),
            key_id: id.to_string(),
            change: None,
            expect: Expected::OpensTo(hex(key.expose())),
        });
        Ok(())
    }

    fn refused_wraps(&mut self, other_kek: &KekId) {
        let good = self
            .manifest
            .wraps
            .iter()
            .find(|case| case.file == "wrap-passphrase.bin")
            .unwrap()
            .clone();
        let mut cases = Vec::new();
        let mut add = |code: &str, edit: &dyn Fn(&mut WrapCase)| {
            let mut case = WrapCase {
                expect: Expected::RefusedAs(code.into()),
                ..good.clone()
            };
            edit(&mut case);
            cases.push(case);
        };
        add("wrap", &|case| case.context = map(OTHER_TENANT));
        add("wrap", &|case| drop(case.context.remove("purpose")));
        add("wrap", &|case| {
            drop(case.context.insert("extra".into(), "1".into()));
        });
        add("wrap", &|case| {
            case.context = [("TENANTID", "t-1"), ("purpose", "pii")].map(own).into();
        });
        add("wrap", &|case| case.usage = "index".into());
        add("wrap", &|case| {
            case.key_id = "01890a5d-ac96-774b-bcce-b302099a8057".into();
        });
        add("wrap", &|case| case.kek = other_kek.to_string());
        add("kek-unknown", &|case| {
            case.kek = "local/00000000-0000-4000-8000-000000000000".into();
        });
        add("kek-unknown", &|case| case.kek = "alias/logs".into());
        add("kek-unknown", &|case| case.kek_file = KEY_FILE.into());
        for at in [0, 1, 16, 17, 28, 29, 40, 41, 72, 73, 88, 89, 120] {
            add("wrap", &|case| case.change = Some(Change::FlipBit(8 * at + 7)));
        }
        for len in [0, 1, 16, 17, 88, 89, 120] {
            add("wrap", &|case| case.change = Some(Change::Keep(len)));
        }
        add("wrap", &|case| case.change = Some(Change::Append(0)));
        self.manifest.wraps.extend(cases);
    }
}
