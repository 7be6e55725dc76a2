//! The methods of a single field: to search by its index, and to verify its password.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

use crate::attributes::{Pair, PairValue};
use crate::generics::Split;
use crate::index::Index;
use crate::model::{Field, Kind, Model, Role};

use super::traits::{begin_row, build_context, constant_of};

/// Writes what the struct itself gets.
pub(super) fn of_struct(model: &Model, split: &Split) -> TokenStream {
    let Kind::Record { context, .. } = &model.kind else {
        return TokenStream::new();
    };
    let methods = model.fields.iter().flat_map(|field| {
        field
            .indexes
            .iter()
            .map(move |index| search(model, split, field, index, context))
    });
    quote!(#(#methods)*)
}

fn search(model: &Model, split: &Split, field: &Field, index: &Index, context: &[Pair]) -> TokenStream {
    let Model { vis, krate, .. } = model;
    let pairs = index.context.as_ref().map_or(context, |own| &own.pairs);
    let fields: Vec<_> = pairs.iter().filter_map(field_of).collect();
    let build = build_context(krate, pairs, |ident| quote!(&#ident));
    let terms = format_ident!("{}_terms", index.stem, span = index.ident.span());
    let matching = format_ident!("matching_{}", index.stem, span = index.ident.span());
    let constant = constant_of(index);
    let encrypted = &model.encrypted.ident;
    let (_, encrypted_generics, _) = split.kept.split_for_impl();
    let Field { ident, name, .. } = field;
    let (_, is_optional) = field.value_type();
    let keep = if is_optional {
        quote!(record.#ident.as_ref().is_some_and(|value| sought.is(value)))
    } else {
        quote!(sought.is(&record.#ident))
    };
    let terms_doc = format!(
        "Computes what a query for `{name}` looks for in column `{}`: a term for each version of the index key.",
        index.sql.value()
    );
    let matching_doc = format!(
        "Decrypts the rows that a query found by [`{terms}`](Self::{terms}), and returns those whose `{name}` is really the \
         value, once both are normalised.",
    );
    quote! {
        #[doc = #terms_doc]
        ///
        /// # Errors
        ///
        /// `Error::Index` if the value cannot be indexed; otherwise as `Crypto::index_terms`.
        ///
        /// # Cancellation
        ///
        /// May be dropped at any time.
        #vis async fn #terms(
            crypto: &#krate::Crypto,
            #(#fields: impl ::core::fmt::Display,)*
            value: impl #krate::IndexValue,
        ) -> ::core::result::Result<#krate::IndexTerms, #krate::Error> {
            let context = #build?;
            crypto.index_terms(&context, &#constant, value).await
        }

        #[doc = #matching_doc]
        ///
        /// # Errors
        ///
        /// `RecordError` names every row and field that failed.
        ///
        /// # Cancellation
        ///
        /// May be dropped at any time.
        #vis async fn #matching(
            crypto: &#krate::Crypto,
            rows: impl ::core::iter::IntoIterator<Item = #encrypted #encrypted_generics>,
            value: impl #krate::IndexValue,
        ) -> ::core::result::Result<::std::vec::Vec<Self>, #krate::RecordError> {
            let sought = #krate::__private::Sought::new(#name, &#constant, &value)?;
            let mut records: ::std::vec::Vec<Self> = #krate::decrypt_all(crypto, rows).await?;
            records.retain(|record| #keep);
            ::core::result::Result::Ok(records)
        }
    }
}

fn field_of(pair: &Pair) -> Option<&Ident> {
    match &pair.value {
        PairValue::Field(ident) => Some(ident),
        PairValue::Literal(_) => None,
    }
}

/// Writes what the encrypted struct gets.
pub(super) fn of_encrypted(model: &Model) -> TokenStream {
    let Kind::Record { context, .. } = &model.kind else {
        return TokenStream::new();
    };
    let methods = model.fields.iter().filter_map(|field| match &field.role {
        Role::Password { context: own } => {
            let pairs = own.as_ref().map_or(context, |own| &own.pairs);
            Some(password(model, field, pairs))
        }
        _ => None,
    });
    quote!(#(#methods)*)
}

fn password(model: &Model, field: &Field, pairs: &[Pair]) -> TokenStream {
    let Model { vis, krate, .. } = model;
    let Field {
        ident, name, column, ..
    } = field;
    let verify = format_ident!("verify_{name}", span = ident.span());
    let hash = format_ident!("hash_{name}", span = ident.span());
    let begin = begin_row(model);
    let build = build_context(krate, pairs, |ident| quote!(&self.#ident));
    let (_, is_optional) = field.value_type();
    let verified = quote!(crypto.verify_password(&context, hash, password, aad).await);
    let verified = if is_optional {
        quote! {
            match &self.#ident {
                ::core::option::Option::Some(hash) => #verified,
                // It takes as long, so that nobody learns who has none.
                ::core::option::Option::None => crypto.verify_nobody(&context, password).await,
            }
        }
    } else {
        quote!({ let hash = &self.#ident; #verified })
    };
    let verify_doc =
        format!("Verifies what somebody typed against the hash in `{name}`. Nothing is decrypted.");
    let hash_doc = format!(
        "Hashes a new password for `{name}` of this row: to change it, or when a verdict asks for it."
    );
    quote! {
        #[doc = #verify_doc]
        ///
        /// # Errors
        ///
        /// As `Crypto::verify_password`. An error is no verdict: let nobody in.
        ///
        /// # Cancellation
        ///
        /// May be dropped at any time.
        #vis async fn #verify(
            &self,
            crypto: &#krate::Crypto,
            password: impl ::core::convert::AsRef<[u8]>,
        ) -> ::core::result::Result<#krate::PasswordVerdict, #krate::Error> {
            let context = #build?;
            let aad = { #begin row.aad(#column) };
            #verified
        }

        #[doc = #hash_doc]
        ///
        /// # Errors
        ///
        /// As `Crypto::hash_password`.
        ///
        /// # Cancellation
        ///
        /// May be dropped at any time.
        #vis async fn #hash(
            &self,
            crypto: &#krate::Crypto,
            password: impl ::core::convert::AsRef<[u8]>,
        ) -> ::core::result::Result<#krate::PasswordHash, #krate::Error> {
            let context = #build?;
            let aad = { #begin row.aad(#column) };
            crypto.hash_password(&context, password, aad).await
        }
    }
}
