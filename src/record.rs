//! Records: structs whose fields are encrypted together, with code from `#[derive(Encrypt)]`.

mod context;
pub(crate) mod derived;
mod describe;
mod error;
mod open;
#[cfg(feature = "password")]
mod password;
mod row;
mod seal;
mod search;
mod token;

use encx_core::context::{ContextError, EncryptionContext};

use crate::crypto::Crypto;

pub use encx_core::aad::{ColumnPart, ColumnValue};
pub use encx_core::codec::{CodecError, Encoded, FieldCodec};
pub use encx_core::column::{
    ContextSource, EncryptedColumn, IndexColumn, IndexedColumn, RowIdColumn, RowIdKind, RowIdPart,
};
pub use error::{FieldFailure, RecordError};
#[cfg(feature = "password")]
pub use password::Password;

use context::{is_in_context, same_context};
use describe::Description;
use open::{Opened, Opening};
use row::Row;
use seal::{Sealed, Sealing};

/// A struct with encrypted fields. `#[derive(Encrypt)]` implements it; its methods are for the generated code.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record that can be encrypted",
    note = "write `#[derive(encx::Encrypt)]` and `#[encx(table = \"..\", context(..))]` above it"
)]
pub trait Record: Sized {
    /// The struct that the database stores instead.
    type Encrypted: EncryptedRecord<Self>;

    #[doc(hidden)]
    fn context(&self) -> Result<EncryptionContext, ContextError>;
    #[doc(hidden)]
    fn collect<'a>(&'a self, out: &mut Sealing<'a>);
    #[doc(hidden)]
    fn assemble(&self, sealed: &mut Sealed) -> Option<Self::Encrypted>;
    #[doc(hidden)]
    fn describe(out: &mut Description);
}

/// A record `P` as the database stores it. `#[derive(Encrypt)]` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not decrypt to `{P}`",
    note = "`#[derive(encx::Encrypt)]` on `{P}` generates the encrypted struct"
)]
pub trait EncryptedRecord<P>: Sized {
    #[doc(hidden)]
    fn context(&self) -> Result<EncryptionContext, ContextError>;
    #[doc(hidden)]
    fn collect<'a>(&'a self, out: &mut Opening<'a>);
    #[doc(hidden)]
    fn assemble(self, opened: &mut Opened) -> Option<P>;
}

/// A struct that is nested in records and has no row of its own. `#[derive(Encrypt)]` with
/// `#[encx(fragment)]` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be nested in an encrypted record",
    label = "this type is not derived",
    note = "write `#[derive(encx::Encrypt)]` and `#[encx(fragment)]` above `{Self}`, or keep it as one value with \
            `#[encx(json)]` instead of `#[encx(nested)]`"
)]
pub trait Fragment: Sized {
    /// The struct that the database stores instead.
    type Encrypted: EncryptedFragment<Self>;

    #[doc(hidden)]
    fn collect<'a>(&'a self, out: &mut Sealing<'a>, row: &mut Row<'_>);
    #[doc(hidden)]
    fn assemble(&self, sealed: &mut Sealed) -> Option<Self::Encrypted>;
    #[doc(hidden)]
    fn describe(out: &mut Description);
}

/// A fragment `P` as the database stores it. `#[derive(Encrypt)]` implements it.
pub trait EncryptedFragment<P>: Sized {
    #[doc(hidden)]
    fn collect<'a>(&'a self, out: &mut Opening<'a>, row: &mut Row<'_>);
    #[doc(hidden)]
    fn assemble(self, opened: &mut Opened) -> Option<P>;
}

/// Encrypts many records in one batch: all of them, or none.
///
/// # Errors
///
/// [`RecordError`] names every row and field that failed.
///
/// # Cancellation
///
/// May be dropped at any time; keys that are being loaded still load.
pub async fn encrypt_all<'a, P>(
    crypto: &Crypto,
    records: impl IntoIterator<Item = &'a P>,
) -> Result<Vec<P::Encrypted>, RecordError>
where
    P: Record + 'a,
{
    let records: Vec<&P> = records.into_iter().collect();
    let mut failures = Vec::new();
    let mut contexts = Vec::with_capacity(records.len());
    let mut collected = Vec::with_capacity(records.len());
    // Records of one type have about as many values as the one before.
    let mut values = 8;
    for (row, record) in records.iter().enumerate() {
        let mut sealing = Sealing::with_room_for(values);
        match record.context() {
            Ok(context) => contexts.push(context),
            Err(error) => sealing.fail(FieldFailure::of_context(error)),
        }
        record.collect(&mut sealing);
        values = sealing.values();
        failures.extend(sealing.take_failures().map(|failure| failure.in_row(row)));
        collected.push(sealing);
    }
    // No key is loaded before the whole input has been checked.
    RecordError::check(failures)?;
    let mut sealed = seal::seal(crypto, &contexts, collected).await?;
    let assembled = records.iter().zip(&mut sealed);
    assembled
        .enumerate()
        .map(|(row, (record, sealed))| {
            record
                .assemble(sealed)
                .ok_or_else(|| FieldFailure::misaligned().in_row(row).into())
        })
        .collect()
}

/// Decrypts a page of rows of one encryption context in one batch: all of them, or none.
///
/// The context is the caller's, such as that of the logged-in tenant. If the columns of any row name another context,
/// no row is decrypted, because that row is not the caller's.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::{Crypto, Encrypt, EncryptionContext, Error};
///
/// #[derive(Encrypt)]
/// #[encx(table = "notes", context("tenantId" = tenant_id))]
/// struct Note {
///     #[encx(id)]
///     id: i64,
///     tenant_id: String,
///     #[encx(encrypt)]
///     text: String,
/// }
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// # let note = |id: i64, tenant: &str| Note { id, tenant_id: tenant.into(), text: format!("note {id}") };
/// # let rows = encx::record::encrypt_all(&crypto, &[note(1, "t-42"), note(2, "t-43")]).await?;
/// let tenant = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
/// let notes: Result<Vec<Note>, _> = encx::record::decrypt_all_in(&crypto, &tenant, rows).await; // the second is of `t-43`
/// # let error = notes.err().unwrap();
/// assert_eq!(error.failures()[0].row, 1);
/// assert!(matches!(error.failures()[0].error, Error::OtherContext));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// [`RecordError`] names every row of another context, with [`Error::OtherContext`](crate::Error::OtherContext);
/// otherwise as [`decrypt_all`].
///
/// # Cancellation
///
/// As [`encrypt_all`].
pub async fn decrypt_all_in<P, R>(
    crypto: &Crypto,
    context: &EncryptionContext,
    rows: impl IntoIterator<Item = R>,
) -> Result<Vec<P>, RecordError>
where
    R: EncryptedRecord<P>,
{
    let rows: Vec<R> = rows.into_iter().collect();
    same_context(Ok(context.clone()), rows.iter().map(EncryptedRecord::context))?;
    decrypt_all(crypto, rows).await
}

/// Decrypts a page of rows in one batch: all of them, or none.
///
/// <div class="warning">
///
/// Each row is decrypted in the encryption context that its own columns name. These are not authenticated: an attacker
/// who can write the table can replace a row of one tenant by a whole row of another. If the caller knows the context,
/// as for a page of one tenant, use [`decrypt_all_in`], and let the query ask for the tenant's rows only.
///
/// </div>
///
/// Missing keys are loaded together, for all contexts of the rows: one query, and concurrent KMS calls.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::{Crypto, Encrypt};
///
/// #[derive(Encrypt)]
/// #[encx(table = "notes", context("tenantId" = tenant_id))]
/// struct Note {
///     #[encx(id)]
///     id: i64,
///     tenant_id: String,
///     #[encx(encrypt)]
///     text: String,
/// }
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// # let note = |id: i64| Note { id, tenant_id: "t-42".into(), text: format!("note {id}") };
/// # let rows = encx::record::encrypt_all(&crypto, &[note(1), note(2)]).await?;
/// let notes: Vec<Note> = encx::record::decrypt_all(&crypto, rows).await?;
/// # assert_eq!(notes[1].text, "note 2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// [`RecordError`] names every row and field that failed. To keep the readable rows, use [`decrypt_each_in`].
///
/// # Cancellation
///
/// As [`encrypt_all`].
pub async fn decrypt_all<P, R>(
    crypto: &Crypto,
    rows: impl IntoIterator<Item = R>,
) -> Result<Vec<P>, RecordError>
where
    R: EncryptedRecord<P>,
{
    let rows = rows.into_iter().collect();
    let mut failures = Vec::new();
    let mut records = Vec::new();
    for opened in open_rows(crypto, rows).await {
        match opened {
            Ok(record) => records.push(record),
            Err(error) => failures.extend(error.into_failures()),
        }
    }
    RecordError::check(failures)?;
    Ok(records)
}

/// Decrypts a page of rows in one batch, and returns a result for each row, in the rows' order.
///
/// It trusts the encryption context in the rows, as [`decrypt_all`] does; see the warning there.
///
/// # Errors
///
/// Each row's [`RecordError`] names the fields that failed.
///
/// # Cancellation
///
/// As [`encrypt_all`].
pub async fn decrypt_each<P, R>(
    crypto: &Crypto,
    rows: impl IntoIterator<Item = R>,
) -> Vec<Result<P, RecordError>>
where
    R: EncryptedRecord<P>,
{
    open_rows(crypto, rows.into_iter().collect()).await
}

/// Decrypts a page of rows of one encryption context in one batch, and returns each row with its result, in the rows'
/// order: a damaged row does not fail its page, and can be shown, repaired or reported.
///
/// The context is the caller's, as in [`decrypt_all_in`]. A row whose columns name another context is not decrypted.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::{Crypto, Encrypt, EncryptionContext};
///
/// #[derive(Encrypt)]
/// #[encx(table = "notes", context("tenantId" = tenant_id), encrypted(derive(Clone)))]
/// struct Note {
///     #[encx(id)]
///     id: i64,
///     tenant_id: String,
///     #[encx(encrypt)]
///     text: String,
/// }
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// # let note = |id: i64| Note { id, tenant_id: "t-42".into(), text: format!("note {id}") };
/// # let mut rows = encx::record::encrypt_all(&crypto, &[note(1), note(2)]).await?;
/// # rows[0].text = rows[1].text.clone();
/// let tenant = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
/// let page: Vec<(EncryptedNote, Result<Note, _>)> = encx::record::decrypt_each_in(&crypto, &tenant, rows).await;
/// for (row, note) in &page {
///     match note {
///         Ok(note) => println!("{}: {}", note.id, note.text),
///         Err(error) => eprintln!("note {} cannot be read: {error}", row.id),
///     }
/// }
/// # assert!(page[0].1.is_err() && page[1].1.is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// Each row's [`RecordError`] names the fields that failed; for a row of another context it contains
/// [`Error::OtherContext`](crate::Error::OtherContext).
///
/// # Cancellation
///
/// As [`encrypt_all`].
pub async fn decrypt_each_in<P, R>(
    crypto: &Crypto,
    context: &EncryptionContext,
    rows: impl IntoIterator<Item = R>,
) -> Vec<(R, Result<P, RecordError>)>
where
    R: EncryptedRecord<P> + Clone,
{
    let rows: Vec<R> = rows.into_iter().collect();
    let mut done: Vec<_> = rows
        .iter()
        .map(|row| is_in_context(context, row.context()).err())
        .collect();
    let own = rows.iter().zip(&done).filter(|(_, other)| other.is_none());
    let own = own.map(|(row, _)| row.clone()).collect();
    let mut opened = open_rows(crypto, own).await.into_iter();
    let results = done.iter_mut().enumerate().map(|(at, other)| {
        let result = match other.take() {
            Some(error) => Err(FieldFailure::new(RecordError::CONTEXT, error).into()),
            None => opened
                .next()
                .unwrap_or_else(|| Err(FieldFailure::misaligned().into())),
        };
        result.map_err(|error: RecordError| error.in_row(at))
    });
    let results: Vec<_> = results.collect();
    rows.into_iter().zip(results).collect()
}

/// Decrypts rows in one batch.
async fn open_rows<P, R>(crypto: &Crypto, rows: Vec<R>) -> Vec<Result<P, RecordError>>
where
    R: EncryptedRecord<P>,
{
    let opened = open(crypto, &rows).await;
    let rows = rows.into_iter().zip(opened);
    rows.enumerate()
        .map(|(at, (row, opened))| {
            opened
                .and_then(|opened| put_together(row, opened))
                .map_err(|error| error.in_row(at))
        })
        .collect()
}

async fn open<P, R>(crypto: &Crypto, rows: &[R]) -> Vec<Result<Opened, RecordError>>
where
    R: EncryptedRecord<P>,
{
    let contexts: Vec<_> = rows.iter().map(EncryptedRecord::context).collect();
    let mut names = Vec::with_capacity(rows.len());
    let mut items = Vec::new();
    for (row, context) in rows.iter().zip(&contexts) {
        let mut names_of_row = Vec::new();
        if let Ok(context) = context {
            let mut opening = Opening::default();
            row.collect(&mut opening);
            for (name, ciphertext, aad) in opening.values {
                names_of_row.push(name);
                items.push((context, ciphertext, aad));
            }
        }
        names.push(names_of_row);
    }
    let mut results = crypto.decrypt_many(items).await.into_iter();
    let hand_out = |(names, context): (Vec<_>, Result<_, _>)| {
        let values = names.into_iter().zip(&mut results).collect();
        let failures = Vec::new();
        match context {
            Ok(_) => Ok(Opened { values, failures }),
            Err(error) => Err(FieldFailure::of_context(error).into()),
        }
    };
    names.into_iter().zip(contexts).map(hand_out).collect()
}

/// Decodes every value, so that the error names every field that failed, and returns the record only if none did.
fn put_together<P, R: EncryptedRecord<P>>(row: R, mut opened: Opened) -> Result<P, RecordError> {
    let record = row.assemble(&mut opened);
    RecordError::check(opened.failures)?;
    record.ok_or_else(|| FieldFailure::misaligned().into())
}
