//! Generates the lookup methods: searching by an index, and verifying a password.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{Ident, Path};

use crate::attributes::{Pair, PairValue};
use crate::field::{Field, Role};
use crate::generics::Split;
use crate::index::Index;
use crate::model::{Kind, Model};

use super::traits::{begin_row, build_context, match_all, tuple};

/// Generates the methods of the plain struct.
pub(super) fn of_struct(model: &Model, split: &Split) -> TokenStream {
    let Kind::Record { context, .. } = &model.kind else {
        return TokenStream::new();
    };
    let of_fields = model.fields.iter().flat_map(|field| {
        field.indexes.iter().map(move |index| Searched {
            index,
            title: &field.name,
            fields: vec![field],
        })
    });
    let of_several = model.compounds.iter().map(|compound| Searched {
        index: &compound.index,
        title: &compound.title,
        fields: model.parts(compound).collect(),
    });
    let methods = of_fields
        .chain(of_several)
        .map(|searched| search(model, split, &searched, context));
    quote!(#(#methods)*)
}

/// The fields of an index search.
struct Searched<'m> {
    index: &'m Index,
    title: &'m str,
    fields: Vec<&'m Field>,
}

impl Searched<'_> {
    /// The type of the searched value: a tuple, if there are several fields.
    fn value(&self, krate: &Path) -> TokenStream {
        tuple(
            self.fields
                .iter()
                .map(|_| quote!(impl #krate::search::IndexValue)),
        )
    }

    /// Tells whether a decrypted record has the searched value.
    fn is_sought(&self, record: &Ident, sought: &Ident) -> TokenStream {
        let is = |parts: &[Ident]| {
            let value = tuple(parts.iter().map(|part| quote!(#part)));
            quote!(#sought.is(&#value))
        };
        match_all(&self.fields, &quote!(#record), is, &quote!(false))
    }
}

fn search(model: &Model, split: &Split, searched: &Searched<'_>, record_context: &[Pair]) -> TokenStream {
    let Model { vis, krate, .. } = model;
    let Searched { index, title, .. } = searched;
    // The fields of the context are parameters too, and may have the same names.
    let [crypto, context, rows, value] = hygienic(["crypto", "context", "rows", "value"]);
    let [sought, record] = hygienic(["sought", "record"]);
    let pairs = index.context.as_ref().map_or(record_context, |own| &own.pairs);
    let fields = fields_of(pairs);
    let build = build_context(krate, pairs, |ident| quote!(&#ident));
    let terms = format_ident!("{}_terms", index.stem, span = index.ident.span());
    let matching = format_ident!("matching_{}", index.stem, span = index.ident.span());
    let constant = index.constant();
    let encrypted = &model.encrypted.ident;
    let (_, encrypted_generics, _) = split.kept.split_for_impl();
    let value_type = searched.value(krate);
    let keep = searched.is_sought(&record, &sought);
    let same = (!fields.is_empty()).then(|| {
        let found = build_context(krate, pairs, |ident| quote!(&#record.#ident));
        quote!(#krate::__private::same_context(#build, #rows.iter().map(|#record| #found))?;)
    });
    let claims = claims(record_context, pairs);
    let matching_in = format_ident!("{matching}_in", span = index.ident.span());
    let in_context = claims.as_ref().map(|_| {
        let found = build_context(krate, record_context, |ident| quote!(&#record.#ident));
        let doc = format!(
            "As [`{matching}`](Self::{matching}), but only for rows of this encryption context: the record's."
        );
        quote! {
            #[doc = #doc]
            ///
            /// # Errors
            ///
            /// `RecordError` names every row whose own columns have another context, with `Error::OtherContext`, and then
            /// nothing is decrypted. It also names every row and field that failed.
            ///
            /// # Cancellation
            ///
            /// May be dropped at any time.
            #vis async fn #matching_in(
                #crypto: &#krate::Crypto,
                #context: &#krate::EncryptionContext,
                #(#fields: impl ::core::fmt::Display,)*
                #rows: impl ::core::iter::IntoIterator<Item = #encrypted #encrypted_generics>,
                #value: #value_type,
            ) -> ::core::result::Result<::std::vec::Vec<Self>, #krate::record::RecordError> {
                let #rows: ::std::vec::Vec<_> = #rows.into_iter().collect();
                let #context = ::core::result::Result::Ok(::core::clone::Clone::clone(#context));
                #krate::__private::same_context(#context, #rows.iter().map(|#record| #found))?;
                Self::#matching(#crypto, #(#fields,)* #rows, #value).await
            }
        }
    });
    let believed = claims.map(|claims| believed(&claims, &matching_in));
    let terms_doc = format!(
        "Computes the terms of a query for `{title}` in column `{}`: one for each version of the index key.",
        index.sql.value()
    );
    let matching_doc = format!(
        "Decrypts the rows that a query found by [`{terms}`](Self::{terms}), and returns those whose `{title}` really is the \
         value, after normalising both.",
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
            #crypto: &#krate::Crypto,
            #(#fields: impl ::core::fmt::Display,)*
            #value: #value_type,
        ) -> ::core::result::Result<#krate::search::IndexTerms, #krate::Error> {
            let #context = #build?;
            #crypto.index_terms(&#context, &#constant, #value).await
        }

        #[doc = #matching_doc]
        #believed
        ///
        /// # Errors
        ///
        /// `RecordError` names every row whose own columns contradict the caller, with `Error::OtherContext`, and then
        /// nothing is decrypted. It also names every row and field that failed.
        ///
        /// # Cancellation
        ///
        /// May be dropped at any time.
        #vis async fn #matching(
            #crypto: &#krate::Crypto,
            #(#fields: impl ::core::fmt::Display,)*
            #rows: impl ::core::iter::IntoIterator<Item = #encrypted #encrypted_generics>,
            #value: #value_type,
        ) -> ::core::result::Result<::std::vec::Vec<Self>, #krate::record::RecordError> {
            let #sought = #krate::__private::Sought::new(#title, &#constant, &#value)?;
            let #rows: ::std::vec::Vec<_> = #rows.into_iter().collect();
            #same
            let mut #rows: ::std::vec::Vec<Self> = #krate::record::decrypt_all(#crypto, #rows).await?;
            #rows.retain(|#record| #keep);
            ::core::result::Result::Ok(#rows)
        }

        #in_context
    }
}

/// Makes names that cannot collide with a field of the struct.
fn hygienic<const N: usize>(names: [&str; N]) -> [Ident; N] {
    names.map(|name| Ident::new(name, Span::mixed_site()))
}

/// Lists the fields of a context, in order, which a caller supplies.
fn fields_of(pairs: &[Pair]) -> Vec<&Ident> {
    let fields = pairs.iter().filter_map(|pair| match &pair.value {
        PairValue::Field(ident) => Some(ident),
        PairValue::Literal(_) => None,
    });
    fields.collect()
}

/// Names the fields of the record's context that its own context omits, if any.
fn claims(record: &[Pair], own: &[Pair]) -> Option<String> {
    let said = fields_of(own);
    let unsaid = fields_of(record)
        .into_iter()
        .filter(|field| !said.contains(field));
    let unsaid: Vec<_> = unsaid.map(|field| format!("`{field}`")).collect();
    (!unsaid.is_empty()).then(|| unsaid.join(", "))
}

/// Warns of fields that are not compared.
fn believed(claims: &str, in_context: &Ident) -> TokenStream {
    let warning = format!(
        "Its own context does not contain {claims}, so these columns of a row are trusted: an attacker who can write the table \
         can have a row of another tenant found and accepted. Act only for the tenant that the row names. If the caller \
         knows the record's context, call [`{in_context}`](Self::{in_context})."
    );
    quote! {
        ///
        /// <div class="warning">
        ///
        #[doc = #warning]
        ///
        /// </div>
    }
}

/// Generates the methods of the encrypted struct.
pub(super) fn of_encrypted(model: &Model) -> TokenStream {
    let Kind::Record { context, .. } = &model.kind else {
        return TokenStream::new();
    };
    let methods = model.fields.iter().filter_map(|field| match &field.role {
        Role::Password { context: own } => {
            let pairs = own.as_ref().map_or(context, |own| &own.pairs);
            Some(password(model, field, pairs, context))
        }
        _ => None,
    });
    quote!(#(#methods)*)
}

fn password(model: &Model, field: &Field, pairs: &[Pair], record: &[Pair]) -> TokenStream {
    let Model { vis, krate, .. } = model;
    let Field {
        ident, name, column, ..
    } = field;
    let [crypto, context, typed, hashed, aad] = hygienic(["crypto", "context", "password", "hash", "aad"]);
    let verify = format_ident!("verify_{name}", span = ident.span());
    let hash = format_ident!("hash_{name}", span = ident.span());
    let begin = begin_row(model);
    let place = quote!({ #begin row.aad(#column) });
    let fields = fields_of(pairs);
    let build = build_context(krate, pairs, |ident| quote!(&#ident));
    let same = (!fields.is_empty()).then(|| {
        let found = build_context(krate, pairs, |ident| quote!(&self.#ident));
        quote!(#krate::__private::is_in_context(&#context, #found)?;)
    });
    let claims = claims(record, pairs);
    let verify_in = format_ident!("{verify}_in", span = ident.span());
    let in_context = claims.as_ref().map(|_| {
        let found = build_context(krate, record, |ident| quote!(&self.#ident));
        let doc = format!(
            "As [`{verify}`](Self::{verify}), but only for a row of this encryption context: the record's."
        );
        quote! {
            #[doc = #doc]
            ///
            /// # Errors
            ///
            /// `Error::OtherContext` if the row's own columns have another context; otherwise as
            /// `Crypto::verify_password`. An error is not a verdict: deny access.
            ///
            /// # Cancellation
            ///
            /// May be dropped at any time.
            #vis async fn #verify_in(
                &self,
                #crypto: &#krate::Crypto,
                #context: &#krate::EncryptionContext,
                #(#fields: impl ::core::fmt::Display,)*
                #typed: impl ::core::convert::AsRef<[u8]>,
            ) -> ::core::result::Result<#krate::password::PasswordVerdict, #krate::Error> {
                #krate::__private::is_in_context(#context, #found)?;
                self.#verify(#crypto, #(#fields,)* #typed).await
            }
        }
    });
    let believed = claims.map(|claims| believed(&claims, &verify_in));
    let (_, is_optional) = field.value_type();
    let verified = quote!(#crypto.verify_password(&#context, #hashed, #typed, #aad).await);
    let verified = if is_optional {
        quote! {
            match &self.#ident {
                ::core::option::Option::Some(#hashed) => #verified,
                // Takes as long as a real check, so that the time does not reveal who has no password.
                ::core::option::Option::None => #crypto.verify_nobody(&#context, #typed).await,
            }
        }
    } else {
        quote!({ let #hashed = &self.#ident; #verified })
    };
    let verify_doc = format!("Verifies a typed password against the hash in `{name}`. Nothing is decrypted.");
    let hash_doc = format!(
        "Hashes a new password for `{name}` of this row: to change it, or when a verdict asks for it."
    );
    quote! {
        #[doc = #verify_doc]
        #believed
        ///
        /// # Errors
        ///
        /// `Error::OtherContext` if the row's own columns contradict the caller; otherwise as
        /// `Crypto::verify_password`. An error is not a verdict: deny access.
        ///
        /// # Cancellation
        ///
        /// May be dropped at any time.
        #vis async fn #verify(
            &self,
            #crypto: &#krate::Crypto,
            #(#fields: impl ::core::fmt::Display,)*
            #typed: impl ::core::convert::AsRef<[u8]>,
        ) -> ::core::result::Result<#krate::password::PasswordVerdict, #krate::Error> {
            let #context = #build?;
            #same
            let #aad = #place;
            #verified
        }

        #in_context

        #[doc = #hash_doc]
        ///
        /// # Errors
        ///
        /// `Error::OtherContext` if the row's own columns contradict the caller; otherwise as `Crypto::hash_password`.
        ///
        /// # Cancellation
        ///
        /// May be dropped at any time.
        #vis async fn #hash(
            &self,
            #crypto: &#krate::Crypto,
            #(#fields: impl ::core::fmt::Display,)*
            #typed: impl ::core::convert::AsRef<[u8]>,
        ) -> ::core::result::Result<#krate::password::PasswordHash, #krate::Error> {
            let #context = #build?;
            #same
            let #aad = #place;
            #crypto.hash_password(&#context, #typed, #aad).await
        }
    }
}
