//! Generates the methods that users call; all of them call into `encx`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Generics;

use crate::generics::{self, Split};
use crate::model::{Kind, Model};

use super::lookups;

pub(super) fn write(model: &Model, split: &Split) -> Option<TokenStream> {
    let Kind::Record { .. } = &model.kind else {
        return None;
    };
    let Model {
        ident, vis, krate, ..
    } = model;
    let encrypted = &model.encrypted.ident;
    let (_, plain_generics, _) = model.generics.split_for_impl();
    let all = generics::with(
        &model.generics,
        generics::bounds(model).into_iter().chain(generics::copies(model)),
    );
    let (all_generics, _, all_where) = all.split_for_impl();
    let (kept_generics, encrypted_generics, kept_where) = split.kept.split_for_impl();
    let decrypt_in_doc = format!(
        "Decrypts every field in one batch, if the row has this encryption context, and returns the `{ident}`."
    );
    let decrypt_doc = format!("Decrypts every field in one batch, and returns the `{ident}`.");
    let encrypt_doc =
        format!("Encrypts every field in one batch, and returns the row to store: an `{encrypted}`.");
    let decrypts: Generics = generics::with(&split.dropped, generics::bounds(model));
    let dropped_params = (!split.dropped.params.is_empty()).then(|| {
        let params = &split.dropped.params;
        quote!(<#params>)
    });
    let decrypt_where = &decrypts.where_clause;
    let searches = lookups::of_struct(model, split);
    let passwords = lookups::of_encrypted(model);
    Some(quote! {
        #[automatically_derived]
        #[allow(clippy::too_many_arguments, dead_code, trivial_bounds)]
        impl #all_generics #ident #plain_generics #all_where {
            #[doc = #encrypt_doc]
            ///
            /// # Errors
            ///
            /// `RecordError` names every field that failed.
            ///
            /// # Cancellation
            ///
            /// May be dropped at any time.
            #vis async fn encrypt(
                &self,
                crypto: &#krate::Crypto,
            ) -> ::core::result::Result<#encrypted #encrypted_generics, #krate::record::RecordError> {
                #krate::__private::encrypt(crypto, self).await
            }

            /// Describes every column of ciphertexts and its blind indexes, for jobs that visit rows.
            #[must_use]
            #vis fn encx_columns() -> ::std::vec::Vec<#krate::record::EncryptedColumn> {
                #krate::__private::columns::<Self>()
            }

            /// Lists everything that the ciphertexts depend on, one item a line. Compare it with a literal in a test: a
            /// change makes existing rows unreadable.
            #[must_use]
            #vis fn encx_manifest() -> ::std::string::String {
                #krate::__private::manifest::<Self>()
            }

            #searches
        }

        #[automatically_derived]
        #[allow(clippy::too_many_arguments, dead_code, trivial_bounds)]
        impl #kept_generics #encrypted #encrypted_generics #kept_where {
            #[doc = #decrypt_in_doc]
            ///
            /// The context is the caller's, such as that of the logged-in tenant.
            ///
            /// # Errors
            ///
            /// `RecordError` with `Error::OtherContext` if the row's own columns have another context: nothing is
            /// decrypted. Otherwise it names every field that failed; there is no partial record.
            ///
            /// # Cancellation
            ///
            /// May be dropped at any time.
            #vis async fn decrypt_in #dropped_params (
                self,
                crypto: &#krate::Crypto,
                context: &#krate::EncryptionContext,
            ) -> ::core::result::Result<#ident #plain_generics, #krate::record::RecordError>
            #decrypt_where
            {
                #krate::__private::decrypt_in(crypto, context, self).await
            }

            #[doc = #decrypt_doc]
            ///
            /// <div class="warning">
            ///
            /// It trusts the row: the encryption context comes from the row's own columns, which are not authenticated.
            /// Let queries ask for the tenant's rows only, or use `decrypt_in`.
            ///
            /// </div>
            ///
            /// # Errors
            ///
            /// `RecordError` names every field that failed; there is no partial record.
            ///
            /// # Cancellation
            ///
            /// May be dropped at any time.
            #vis async fn decrypt #dropped_params (
                self,
                crypto: &#krate::Crypto,
            ) -> ::core::result::Result<#ident #plain_generics, #krate::record::RecordError>
            #decrypt_where
            {
                #krate::__private::decrypt(crypto, self).await
            }

            #passwords
        }
    })
}
