//! The code of `docs/guide.md`.

use std::path::Path;

use encx::{Ciphertext, Crypto, EncryptionContext, Field};
use encx_local::{LocalKms, Protection};
use encx_sqlx::SqliteKeyStore;
use sqlx::sqlite::SqlitePool;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

async fn start(pool: &SqlitePool, keks: &Path, passphrase: &str) -> Result<Crypto> {
    let kms = LocalKms::open_or_create(keks, Protection::passphrase(passphrase)).await?;
    let store = SqliteKeyStore::from_pool(pool.clone());
    store.migrate().await?;
    Ok(Crypto::builder(kms, store).build().await?)
}

fn pii(tenant: &str) -> Result<EncryptionContext> {
    let context = EncryptionContext::builder()
        .pair("tenantId", tenant)
        .pair("purpose", "pii");
    Ok(context.build()?)
}

const SSN: Field = Field::new("users", "ssn");

async fn set_ssn(crypto: &Crypto, pool: &SqlitePool, tenant: &str, id: i64, ssn: &str) -> Result<()> {
    let sealed = crypto.encrypt(&pii(tenant)?, ssn, SSN.row(id)).await?;
    let sql = "UPDATE users SET ssn = $1 WHERE id = $2";
    sqlx::query(sql).bind(sealed).bind(id).execute(pool).await?;
    Ok(())
}

async fn ssn(crypto: &Crypto, pool: &SqlitePool, tenant: &str, id: i64) -> Result<String> {
    let sql = "SELECT ssn FROM users WHERE id = $1";
    let sealed: Ciphertext = sqlx::query_scalar(sql).bind(id).fetch_one(pool).await?;
    let ssn = crypto.decrypt(&pii(tenant)?, &sealed, SSN.row(id)).await?;
    Ok(ssn.into_string()?)
}

mod a_struct {
    use super::{Crypto, Result, SqlitePool, pii};

    use encx::Encrypt;
    use encx::record::{decrypt_all_in, decrypt_each_in};

    #[derive(Encrypt, Debug, PartialEq)]
    #[encx(table = "patients", context("tenantId" = tenant_id, "purpose" = "pii"))]
    #[encx(encrypted(derive(Clone, sqlx::FromRow)))]
    pub(super) struct Patient {
        #[encx(id)]
        pub(super) id: i64,
        pub(super) tenant_id: String,
        #[encx(encrypt)]
        pub(super) email: String,
        #[encx(encrypt)]
        pub(super) diagnosis: Option<String>,
    }

    pub(super) async fn insert(crypto: &Crypto, pool: &SqlitePool, patient: &Patient) -> Result<()> {
        let row = patient.encrypt(crypto).await?;
        let sql = "INSERT INTO patients (id, tenant_id, email, diagnosis) VALUES ($1, $2, $3, $4)";
        let insert = sqlx::query(sql).bind(row.id).bind(row.tenant_id);
        insert.bind(row.email).bind(row.diagnosis).execute(pool).await?;
        Ok(())
    }

    pub(super) async fn of_tenant(crypto: &Crypto, pool: &SqlitePool, tenant: &str) -> Result<Vec<Patient>> {
        let sql = "SELECT * FROM patients WHERE tenant_id = $1 ORDER BY id LIMIT 50";
        let rows: Vec<EncryptedPatient> = sqlx::query_as(sql).bind(tenant).fetch_all(pool).await?;
        Ok(decrypt_all_in(crypto, &pii(tenant)?, rows).await?)
    }

    #[allow(clippy::print_stderr, reason = "the document prints")]
    pub(super) async fn readable(crypto: &Crypto, pool: &SqlitePool, tenant: &str) -> Result<Vec<Patient>> {
        let sql = "SELECT * FROM patients WHERE tenant_id = $1 ORDER BY id LIMIT 50";
        let rows: Vec<EncryptedPatient> = sqlx::query_as(sql).bind(tenant).fetch_all(pool).await?;
        let mut patients = Vec::new();
        for (row, patient) in decrypt_each_in(crypto, &pii(tenant)?, rows).await {
            match patient {
                Ok(patient) => patients.push(patient),
                Err(error) => eprintln!("patient {}: {error}", row.id),
            }
        }
        Ok(patients)
    }

    #[test]
    fn patients_are_kept_as_before() {
        assert_eq!(
            Patient::encx_manifest(),
            "\
table patients
id id: integer
context tenantId = column tenant_id
context purpose = \"pii\"
field email: text, in patients.email
field diagnosis: text, in patients.diagnosis
"
        );
    }
}

mod a_query {
    use super::{Ciphertext, Crypto, Field, Result, SqlitePool, pii};

    use encx::search::{BlindIndex, IndexField, Normalizer};
    use sqlx::QueryBuilder;

    const EMAIL: Field = Field::new("members", "email");
    const BY_EMAIL: IndexField = IndexField::new("members", "email", 64).normalize(Normalizer::Email);

    pub(super) async fn join(
        crypto: &Crypto,
        pool: &SqlitePool,
        tenant: &str,
        id: i64,
        email: &str,
    ) -> Result<()> {
        let context = pii(tenant)?;
        let sealed: Ciphertext = crypto.encrypt(&context, email, EMAIL.row(id)).await?;
        let index: BlindIndex = crypto.blind_index(&context, &BY_EMAIL, email).await?;
        let sql = "INSERT INTO members (id, email, email_index) VALUES ($1, $2, $3)";
        sqlx::query(sql)
            .bind(id)
            .bind(sealed)
            .bind(index)
            .execute(pool)
            .await?;
        Ok(())
    }

    pub(super) async fn find(
        crypto: &Crypto,
        pool: &SqlitePool,
        tenant: &str,
        email: &str,
    ) -> Result<Option<i64>> {
        let context = pii(tenant)?;
        let terms = crypto.index_terms(&context, &BY_EMAIL, email).await?;
        let mut query = QueryBuilder::new("SELECT id, email FROM members WHERE email_index");
        terms.push_in(&mut query); // on PostgreSQL: `= ANY($1)`, with `terms.as_slice()` bound
        let candidates: Vec<(i64, Ciphertext)> = query.build_query_as().fetch_all(pool).await?;
        for (id, sealed) in candidates {
            let found = crypto.decrypt(&context, &sealed, EMAIL.row(id)).await?;
            if BY_EMAIL.is_same(found.into_string()?, email)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

mod a_password {
    use super::{Crypto, EncryptionContext, Field, Result, SqlitePool};

    use encx::password::{PasswordHash, PasswordVerdict};

    const PASSWORD: Field = Field::new("accounts", "password");

    fn login() -> Result<EncryptionContext> {
        Ok(EncryptionContext::builder().pair("purpose", "login").build()?)
    }

    pub(super) async fn set(crypto: &Crypto, pool: &SqlitePool, id: i64, password: &str) -> Result<()> {
        let hash = crypto
            .hash_password(&login()?, password, PASSWORD.row(id))
            .await?;
        let sql = "INSERT INTO accounts (id, password) VALUES ($1, $2) \
                   ON CONFLICT (id) DO UPDATE SET password = excluded.password";
        sqlx::query(sql).bind(id).bind(hash).execute(pool).await?;
        Ok(())
    }

    pub(super) async fn verify(crypto: &Crypto, pool: &SqlitePool, id: i64, password: &str) -> Result<bool> {
        let sql = "SELECT password FROM accounts WHERE id = $1";
        let hash: Option<PasswordHash> = sqlx::query_scalar(sql).bind(id).fetch_optional(pool).await?;
        let Some(hash) = hash else {
            // Takes as long as for an existing account.
            return Ok(crypto.verify_nobody(&login()?, password).await?.is_match());
        };
        let verdict = crypto
            .verify_password(&login()?, &hash, password, PASSWORD.row(id))
            .await?;
        if let PasswordVerdict::Match { needs_rehash: true } = verdict {
            set(crypto, pool, id, password).await?;
        }
        Ok(verdict.is_match())
    }
}

async fn rotate(crypto: &Crypto, pool: &SqlitePool, tenant: &str) -> Result<()> {
    let context = pii(tenant)?;
    crypto
        .key_manager()
        .because("yearly rotation")
        .rotate(&context)
        .await?;

    let sql = "SELECT id, ssn FROM users WHERE tenant_id = $1 AND ssn IS NOT NULL";
    let rows: Vec<(i64, Ciphertext)> = sqlx::query_as(sql).bind(tenant).fetch_all(pool).await?;
    for (id, sealed) in rows {
        if crypto.needs_reencryption(&context, &sealed).await? {
            let ssn = crypto.decrypt(&context, &sealed, SSN.row(id)).await?;
            let again = crypto.encrypt(&context, ssn, SSN.row(id)).await?;
            // Writes only if the row is unchanged.
            let sql = "UPDATE users SET ssn = $1 WHERE id = $2 AND ssn = $3";
            sqlx::query(sql)
                .bind(again)
                .bind(id)
                .bind(sealed)
                .execute(pool)
                .await?;
        }
    }
    Ok(())
}

mod their_own_tests {
    use super::{Result, SSN, pii};

    use encx_testkit::Harness;

    #[tokio::test]
    async fn a_request_costs_no_call_to_the_kms() -> Result<()> {
        let harness = Harness::new().await;
        let crypto = harness.crypto();
        let sealed = crypto.encrypt(&pii("acme")?, "123-45-6789", SSN.row(7)).await?;
        harness.kms().reset_calls();
        crypto.decrypt(&pii("acme")?, &sealed, SSN.row(7)).await?;
        harness.assert_kms_calls(0);
        Ok(())
    }
}

/// The claims of the document about its code.
#[tokio::test]
async fn it_does_what_the_document_says() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("service.db");
    let pool = SqlitePool::connect(&format!("sqlite:{}?mode=rwc", file.display())).await?;
    let document = include_str!("../../docs/guide.md");
    let tables: Vec<_> = document.split("```sql\n").skip(1).collect();
    assert_eq!(tables.len(), 4);
    for table in tables {
        let sql = table.split("```").next().unwrap();
        sqlx::raw_sql(sql).execute(&pool).await?;
    }
    sqlx::query("INSERT INTO users (id, tenant_id) VALUES (7, 'acme'), (8, 'acme')")
        .execute(&pool)
        .await?;
    let keks = folder.path().join("keks.encx");
    let crypto = start(&pool, &keks, "six random words or so").await?;
    // As `main` prints it.
    let printed = format!("Error: {:?}", start(&pool, &keks, "others").await.unwrap_err());
    let printed = printed
        .replace(folder.path().to_str().unwrap(), "")
        .replace(" /keks", " keks");
    assert!(document.contains(&printed), "{printed}");

    set_ssn(&crypto, &pool, "acme", 7, "123-45-6789").await?;
    assert_eq!(ssn(&crypto, &pool, "acme", 7).await?, "123-45-6789");
    sqlx::query("UPDATE users SET ssn = (SELECT ssn FROM users WHERE id = 7) WHERE id = 8")
        .execute(&pool)
        .await?;
    assert!(
        ssn(&crypto, &pool, "acme", 8).await.is_err(),
        "not in another row"
    );
    assert!(
        ssn(&crypto, &pool, "umbrella", 7).await.is_err(),
        "nor in another tenant"
    );

    let patient = a_struct::Patient {
        id: 7,
        tenant_id: "acme".to_owned(),
        email: "ada@example.org".to_owned(),
        diagnosis: None,
    };
    a_struct::insert(&crypto, &pool, &patient).await?;
    assert_eq!(a_struct::of_tenant(&crypto, &pool, "acme").await?, [patient]);
    let copied = "INSERT INTO patients SELECT 8, tenant_id, email, diagnosis FROM patients";
    sqlx::query(copied).execute(&pool).await?;
    assert!(a_struct::of_tenant(&crypto, &pool, "acme").await.is_err());
    let readable = a_struct::readable(&crypto, &pool, "acme").await?;
    assert_eq!(readable.iter().map(|patient| patient.id).collect::<Vec<_>>(), [7]);

    a_query::join(&crypto, &pool, "acme", 1, "ada@example.org").await?;
    assert_eq!(
        a_query::find(&crypto, &pool, "acme", " Ada@Example.ORG").await?,
        Some(1)
    );
    assert_eq!(
        a_query::find(&crypto, &pool, "umbrella", "ada@example.org").await?,
        None
    );

    a_password::set(&crypto, &pool, 1, "correct horse").await?;
    assert!(a_password::verify(&crypto, &pool, 1, "correct horse").await?);
    assert!(!a_password::verify(&crypto, &pool, 1, "correct cow").await?);
    assert!(!a_password::verify(&crypto, &pool, 2, "correct horse").await?);

    let kept = "SELECT ssn FROM users WHERE id = 7";
    let before: Ciphertext = sqlx::query_scalar(kept).fetch_one(&pool).await?;
    sqlx::query("UPDATE users SET ssn = NULL WHERE id = 8")
        .execute(&pool)
        .await?;
    rotate(&crypto, &pool, "acme").await?;
    let after: Ciphertext = sqlx::query_scalar(kept).fetch_one(&pool).await?;
    assert_ne!(before.key_id(), after.key_id());
    assert_eq!(ssn(&crypto, &pool, "acme", 7).await?, "123-45-6789");
    crypto.shutdown().await;
    Ok(())
}

#[test]
fn the_document_shows_this() {
    super::shown::assert_shown(include_str!("../../docs/guide.md"), include_str!("guide.rs"));
}
