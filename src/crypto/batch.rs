//! Batches: every missing key is loaded once, and all of them together. Adjacent values of one context share one check
//! of its keys, and their nonces are drawn together.

use std::collections::HashMap;
use std::sync::Arc;

use encx_core::aad::AsAad;
use encx_core::ciphertext::Ciphertext;
use encx_core::context::EncryptionContext;
use encx_core::key::KeyUsage;

use crate::cache::Entry;
use crate::keyring::{Core, Done, Item, ToOpen, ToSeal, Work};
use crate::plaintext::Plaintext;

/// A value to encrypt: context, plaintext, place.
type Sealing<'a, P, A> = (&'a EncryptionContext, P, A);

/// A value to decrypt: context, ciphertext, place.
type Opening<'a, A> = (&'a EncryptionContext, &'a Ciphertext, A);

/// Encrypts while the keys are cached; `false` if one must be loaded.
pub(super) fn try_encrypt_many<P: AsRef<[u8]>, A: AsAad>(
    core: &Core,
    items: &[Sealing<'_, P, A>],
    done: &mut Done<Ciphertext>,
) -> bool {
    items.chunk_by(|a, b| a.0 == b.0).all(|run| {
        let entry = entry(core, run[0].0);
        core.try_encrypt_many(&entry, run, to_seal, done)
    })
}

/// Encrypts the rest of a batch, and loads keys for it.
pub(super) async fn encrypt_rest<P: AsRef<[u8]> + Sync, A: AsAad>(
    core: &Core,
    items: &[Sealing<'_, P, A>],
    done: &mut Done<Ciphertext>,
) {
    let rest = &items[done.len()..];
    let contexts = rest.iter().map(|(context, ..)| *context);
    done.extend(do_rest(core, contexts, rest.iter().map(to_seal)).await);
}

/// Decrypts while the keys are cached; `false` if one must be loaded.
pub(super) fn try_decrypt_many<A: AsAad>(
    core: &Core,
    items: &[Opening<'_, A>],
    done: &mut Done<Plaintext>,
) -> bool {
    let all = items.chunk_by(|a, b| a.0 == b.0).all(|run| {
        let entry = entry(core, run[0].0);
        core.try_decrypt_many(&entry, run, to_open, done)
    });
    if all {
        core.note_all_refused(items.iter().map(to_open), done);
    }
    all
}

/// Decrypts the rest of a batch, and loads keys for it.
pub(super) async fn decrypt_rest<A: AsAad>(
    core: &Core,
    items: &[Opening<'_, A>],
    done: &mut Done<Plaintext>,
) {
    let rest = &items[done.len()..];
    let contexts = rest.iter().map(|(context, ..)| *context);
    done.extend(do_rest(core, contexts, rest.iter().map(to_open)).await);
    core.note_all_refused(items.iter().map(to_open), done);
}

fn entry(core: &Core, context: &EncryptionContext) -> Arc<Entry> {
    core.cache().nearby_entry(context, KeyUsage::Data)
}

/// Does the rest of a batch once a key must be loaded. Each value has a context.
async fn do_rest<'a, T: Work>(
    core: &Core,
    contexts: impl Iterator<Item = &'a EncryptionContext>,
    values: impl Iterator<Item = T>,
) -> Done<T::Done> {
    let (entries, of) = entries(core, contexts);
    let items: Vec<_> = values
        .zip(of)
        .map(|(what, of)| Item {
            entry: &entries[of],
            what,
        })
        .collect();
    core.do_cold(&items).await
}

/// Finds the entry of each context once, and returns each context's index into the entries.
fn entries<'a>(
    core: &Core,
    contexts: impl Iterator<Item = &'a EncryptionContext>,
) -> (Vec<Arc<Entry>>, Vec<usize>) {
    let (mut entries, mut known) = (Vec::new(), HashMap::new());
    let of = contexts.map(|context| {
        *known.entry(context).or_insert_with(|| {
            entries.push(entry(core, context));
            entries.len() - 1
        })
    });
    let of = of.collect();
    (entries, of)
}

fn to_seal<'i, P: AsRef<[u8]>, A: AsAad>((_, plaintext, aad): &'i (&EncryptionContext, P, A)) -> ToSeal<'i> {
    (plaintext.as_ref(), aad.as_aad())
}

fn to_open<'i, A: AsAad>((_, ciphertext, aad): &'i (&EncryptionContext, &Ciphertext, A)) -> ToOpen<'i> {
    (ciphertext, aad.as_aad())
}
