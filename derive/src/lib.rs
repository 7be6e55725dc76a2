//! `#[derive(Encrypt)]` of [`encx`](https://docs.rs/encx). Use it as `encx::Encrypt`, with feature `derive`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod attributes;
mod check;
mod compound;
mod expand;
mod field;
mod generics;
mod index;
mod model;
mod types;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Generates the encrypted form of a struct, and the conversions to and from it.
///
/// ```
/// use encx::Encrypt;
///
/// #[derive(Encrypt)]
/// #[encx(table = "users", context("tenantId" = tenant_id, "purpose" = "pii"))]
/// struct User {
///     #[encx(id)]
///     id: i64,
///     tenant_id: String,
///     #[encx(encrypt)]
///     email: String,
///     #[encx(encrypt)]
///     phone: Option<String>,
/// }
///
/// # use encx::Crypto;
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let user = User { id: 7, tenant_id: "t-42".into(), email: "ada@example.com".into(), phone: None };
/// let row: EncryptedUser = user.encrypt(&crypto).await?; // `email` is an `encx::Ciphertext`, `phone` an `Option` of one
/// let user: User = row.decrypt(&crypto).await?;
/// # assert_eq!(user.email, "ada@example.com");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// It generates `EncryptedUser`, with the fields of `User` under the same names, and these methods:
///
/// | method | what it does |
/// | --- | --- |
/// | `User::encrypt(&self, &crypto)` | encrypts all fields in one batch; plain ones are cloned |
/// | `EncryptedUser::decrypt_in(self, &crypto, &context)` | decrypts all fields in one batch, if the row has the caller's context |
/// | `EncryptedUser::decrypt(self, &crypto)` | the same under the context in the row's own columns: these are not authenticated, so the query must ask for the tenant's rows only |
/// | `User::email_terms(&crypto, .., value)` | of an index: the terms of a query; takes a tuple, if the index is over several fields. Takes the fields of the index's context, in order |
/// | `User::matching_email(&crypto, .., rows, value)` | of an index: decrypts candidates and returns those that really have the value. Takes the same fields, and refuses rows that contradict them |
/// | `EncryptedUser::verify_password(&self, &crypto, .., typed)` | of a password: verifies a typed password. Takes the fields of its context, and refuses a row that contradicts them |
/// | `EncryptedUser::hash_password(&self, &crypto, .., typed)` | of a password: hashes a new one for this row |
/// | `matching_email_in(&crypto, &context, ..)`, `verify_password_in(&crypto, &context, ..)` | if an index or a password has its own context without all the struct's fields: the same, only for rows of this record's context |
/// | `User::encx_columns()` | describes every column of ciphertexts and its blind indexes, for jobs that visit rows |
/// | `User::encx_manifest()` | lists everything that ciphertexts depend on; pin it in a test |
///
/// For many rows use `encx::record::encrypt_all`, `encx::record::decrypt_all_in`, `encx::record::decrypt_all` and
/// `encx::record::decrypt_each`. Errors are `encx::record::RecordError`, which names every field that failed; there is
/// never a partial record.
///
/// # Attributes of the struct
///
/// | `#[encx(..)]` | |
/// | --- | --- |
/// | `table = "users"` | the table's name in the AAD; must not change while rows exist. Required |
/// | `context("tenantId" = tenant_id, "purpose" = "pii")` | the encryption context: keys, and plain fields of the struct or texts. A field must print the same forever. Required |
/// | `sql_table = "app.users"` | the table's name in SQL, if it differs; only in `encx_columns` |
/// | `fragment` | instead of `table` and `context`: the struct has no row and is nested in others |
/// | `encrypted(name = "UserRow")` | the name of the generated struct; by default `Encrypted` before the struct's name |
/// | `encrypted(vis = "pub")` | its visibility; by default that of the struct |
/// | `encrypted(derive(sqlx::FromRow, Clone))` | its derives, instead of `Clone, Debug`. With `FromRow`, renamed columns and nested structs get their `#[sqlx(..)]` |
/// | `encrypted(attr(serde(rename_all = "camelCase")))` | attributes for it |
/// | `index(name = "name_born", fields = [last_name, born], bits = 16, ..)` | an index over several fields; see below. May be repeated |
/// | `crate = "my_reexport::encx"` | the path of `encx`; by default `::encx` |
///
/// # Attributes of fields
///
/// | `#[encx(..)]` | |
/// | --- | --- |
/// | `id` | identifies the row permanently, such as its primary key. Several fields are parts of one id, in order. At least one is required |
/// | `id(kind = "integer")` | for an id type of your own, the wrapped type: `bytes`, `integer`, `text`, `uuid` |
/// | `encrypt` | is encrypted by its `encx::record::FieldCodec`. An `Option`, written by that name, is NULL when it is `None` |
/// | `index(bits = 16, ..)` | with `encrypt`: can be found by equality; see below. May be repeated |
/// | `password` | is an `encx::record::Password`, or an `Option` of one, and hashed; feature `password` of `encx` |
/// | `password(context("purpose" = "login"))` | the same, under a context of its own |
/// | `token, bind(owner, rights, expires_at)` | is an `encx::token::TokenDigest`, or an `Option` of one: the digest of an `encx::token::ApiToken`, encrypted, and bound to plain fields besides the row. Changing one of them in the database is detected; each implements `encx::record::ColumnValue` |
/// | `json` | is encrypted as JSON, one value; feature `json` of `encx`. A value that could not be read back is refused, such as NaN and `Some(None)` |
/// | `nested` | is a struct with `#[encx(fragment)]`, or an `Option` of one. Not with `Vec`: keep that as `json`, or in its own table |
/// | `nested(prefix = "billing_")` | its columns in SQL begin with this; only in `encx_columns`. `sqlx::FromRow` cannot be derived for that, nor for an `Option` |
/// | `rename = "ssn"` | the column's name, by default the field's. It is authenticated: after renaming a field, keep the old name here. The compiler cannot see a rename: the manifest in a test does |
/// | `sql_column = "social"` | the column's name in SQL, if it differs |
/// | `attr(serde(skip))` | attributes for the field in the generated struct |
///
/// Fields without an attribute are plain: they are copied.
///
/// # Attributes of a blind index
///
/// It adds the field `email_index`, of type `encx::search::BlindIndex`, to the generated struct.
/// `encx::search::IndexField` says what it reveals to a reader of the database.
///
/// | `index(..)` | |
/// | --- | --- |
/// | `bits = 16` | how many bits are kept, 8 to 256: choose with `encx::search::IndexField::bits_for`. Required |
/// | `normalize = "email"` | `exact` (default), `trim`, `lowercase`, `email`, `phone`, `case-fold`, or a constant of your own: `normalize = MY_NORMALIZER` |
/// | `context("purpose" = "login")` | a context of its own, for searches that do not know the struct's; by default the struct's |
/// | `column = "email_term"` | its column in SQL, which `encx_columns` names; by default `email_index` |
/// | `name = "exact"` | distinguishes a second index of the same field; its field and methods are then named `email_exact_..`. Part of the index's key: keep it |
/// | `expecting = 10_000` | the number of distinct values. Does not compile if so few values cannot be hidden, or `bits` is too many for them |
/// | `unique` | for a UNIQUE column: at least 128 bits. Before you rotate, see `Crypto::blind_index_under`; before you write an upsert, `IndexField::unique` |
/// | `insecure_small_domain` | overrides the checks of `expecting` |
/// | `attr(serde(skip))` | attributes for the field `email_index` |
///
/// An index that finds rows by several encrypted fields together goes above the struct. It has a `name`, `fields`, each
/// optionally with its own normaliser, and the other attributes listed here. The following one adds the field
/// `name_born_index`, which is NULL if one of the fields is, and the methods `name_born_terms` and `matching_name_born`,
/// which take a tuple:
///
/// ```
/// # use encx::{Crypto, Encrypt};
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// #[derive(Encrypt)]
/// #[encx(table = "patients", context("tenantId" = tenant_id))]
/// #[encx(index(name = "name_born", fields = [last_name(normalize = "case-fold"), born], bits = 16))]
/// struct Patient {
///     #[encx(id)]
///     id: i64,
///     tenant_id: String,
///     #[encx(encrypt)]
///     last_name: String,
///     #[encx(encrypt)]
///     born: String,
/// }
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// # let (tenant_id, last_name, born) = ("t-42".into(), "Lovelace".into(), "1815-12-10".into());
/// # let row = Patient { id: 7, tenant_id, last_name, born }.encrypt(&crypto).await?;
/// let terms = Patient::name_born_terms(&crypto, "t-42", ("lovelace", "1815-12-10")).await?;
/// assert!(terms.contains(&row.name_born_index));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// <div class="warning">
///
/// Table, columns, ids and context are authenticated. Changing one makes existing rows unreadable, so pin them:
/// `assert_eq!(User::encx_manifest(), "...")` in a test.
///
/// </div>
#[proc_macro_derive(Encrypt, attributes(encx))]
pub fn derive_encrypt(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let expanded = model::Model::read(&input).map(|model| expand::expand(&model));
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}
