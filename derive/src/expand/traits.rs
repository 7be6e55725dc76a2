//! Generates the impls of `encx`'s traits.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, Path};

use crate::attributes::{Context, Pair, PairValue};
use crate::compound::Compound;
use crate::field::{Field, Role, span_of};
use crate::generics::{self, Split};
use crate::model::{Kind, Model};

use super::describe;

pub(super) fn write(model: &Model, split: &Split) -> TokenStream {
    let Model { ident, krate, .. } = model;
    let encrypted = &model.encrypted.ident;
    let (_, encrypted_generics, _) = split.kept.split_for_impl();
    let decrypts = generics::with(&model.generics, generics::bounds(model));
    let encrypts = generics::with(&decrypts, generics::copies(model));
    let (_, plain_generics, _) = model.generics.split_for_impl();
    let (encrypt_generics, _, encrypt_where) = encrypts.split_for_impl();
    // `bounds` covers both directions; encryption also copies plain fields.
    let (decrypt_generics, _, decrypt_where) = decrypts.split_for_impl();

    let (record, encrypted_record) = match model.kind {
        Kind::Fragment => (quote!(Fragment), quote!(EncryptedFragment)),
        Kind::Record { .. } => (quote!(Record), quote!(EncryptedRecord)),
    };
    let row_parameter = match model.kind {
        Kind::Fragment => Some(quote!(row: &mut #krate::__private::Row<'_>)),
        Kind::Record { .. } => None,
    };
    let begin = begin_row(model);
    let context = context(model);
    let collect_values = model
        .fields
        .iter()
        .filter_map(|field| collect_value(model, field))
        .chain(model.compounds.iter().map(|compound| index_all(model, compound)));
    let collect_ciphertexts = model
        .fields
        .iter()
        .filter_map(|field| collect_ciphertext(model, field));
    // In the order in which they were collected.
    let seal = model
        .fields
        .iter()
        .map(|field| assemble_ciphertext(model, field))
        .chain(
            model
                .compounds
                .iter()
                .map(|compound| hand_out_index(model, compound)),
        );
    let slots: Vec<_> = (0..model.fields.len())
        .map(|at| format_ident!("field_{at}"))
        .collect();
    let open = model
        .fields
        .iter()
        .zip(&slots)
        .map(|(field, slot)| decode_value(model, field, slot));
    let names: Vec<_> = model.fields.iter().map(|field| &field.ident).collect();
    let describe = describe::write(model);

    quote! {
        #[automatically_derived]
        #[allow(trivial_bounds)]
        impl #encrypt_generics #krate::record::#record for #ident #plain_generics #encrypt_where {
            type Encrypted = #encrypted #encrypted_generics;

            #context

            fn collect<'encx>(&'encx self, out: &mut #krate::__private::Sealing<'encx>, #row_parameter) {
                #begin
                #(#collect_values)*
            }

            fn assemble(&self, sealed: &mut #krate::__private::Sealed) -> ::core::option::Option<Self::Encrypted> {
                ::core::option::Option::Some(#encrypted { #(#seal,)* })
            }

            #describe
        }

        #[automatically_derived]
        #[allow(trivial_bounds)]
        impl #decrypt_generics #krate::record::#encrypted_record<#ident #plain_generics>
            for #encrypted #encrypted_generics #decrypt_where
        {
            #context

            fn collect<'encx>(&'encx self, out: &mut #krate::__private::Opening<'encx>, #row_parameter) {
                #begin
                #(#collect_ciphertexts)*
            }

            fn assemble(
                self,
                opened: &mut #krate::__private::Opened,
            ) -> ::core::option::Option<#ident #plain_generics> {
                // All before the first `?`, so that the error names every field that failed.
                #(#open)*
                ::core::option::Option::Some(#ident { #(#names: #slots?,)* })
            }
        }
    }
}

/// Generates the constants of the indexes, so that a wrong index does not compile.
pub(super) fn index_constants(model: &Model) -> TokenStream {
    let Kind::Record { table, .. } = &model.kind else {
        return TokenStream::new();
    };
    let krate = &model.krate;
    let of_fields = model.fields.iter().flat_map(|field| &field.indexes);
    let of_several = model.compounds.iter().map(|compound| &compound.index);
    let constants = of_fields.chain(of_several).map(|index| {
        let constant = index.constant();
        let value = index.field(krate, table);
        quote!(const #constant: #krate::search::IndexField = #value;)
    });
    quote!(#(#constants)*)
}

/// Names the row. The id is borrowed from either struct; both have it under the same names.
pub(super) fn begin_row(model: &Model) -> Option<TokenStream> {
    let Kind::Record { table, .. } = &model.kind else {
        return None;
    };
    let krate = &model.krate;
    let parts = model.ids().map(|field| {
        let ident = &field.ident;
        quote_spanned!(span_of(field)=> &self.#ident)
    });
    let id = tuple(parts);
    Some(quote! {
        let id = #id;
        let mut row = #krate::__private::Row::new(#table, &id);
        let row = &mut row;
    })
}

fn context(model: &Model) -> Option<TokenStream> {
    let Kind::Record { context, .. } = &model.kind else {
        return None;
    };
    let krate = &model.krate;
    let context = build_context(krate, context, |ident| quote!(&self.#ident));
    Some(quote! {
        fn context(&self) -> ::core::result::Result<#krate::EncryptionContext, #krate::ContextError> {
            #context
        }
    })
}

/// Builds a context; `value_of` returns the expression of a field's value.
pub(super) fn build_context(
    krate: &Path,
    pairs: &[Pair],
    value_of: impl Fn(&Ident) -> TokenStream,
) -> TokenStream {
    let pairs = pairs.iter().map(|Pair { key, value }| match value {
        PairValue::Field(ident) => {
            let value = value_of(ident);
            quote_spanned!(ident.span()=> .pair(#key, #value))
        }
        PairValue::Literal(text) => quote!(.pair(#key, #text)),
    });
    quote!(#krate::EncryptionContext::builder() #(#pairs)* .build())
}

/// Builds an index's or a password's own context; `None` stands for the record's.
fn own_context(model: &Model, own: Option<&Context>) -> TokenStream {
    match own {
        Some(own) => {
            let context = build_context(&model.krate, &own.pairs, |ident| quote!(&self.#ident));
            quote!(::core::option::Option::Some(#context))
        }
        None => quote!(::core::option::Option::None),
    }
}

/// Runs `then` with `value`, a reference to the field's value, if there is one.
fn with_value(field: &Field, then: &TokenStream) -> TokenStream {
    let ident = &field.ident;
    let (_, is_optional) = field.value_type();
    if is_optional {
        quote! {
            if let ::core::option::Option::Some(value) = &self.#ident { #then }
        }
    } else {
        quote! {
            { let value = &self.#ident; #then }
        }
    }
}

fn collect_value(model: &Model, field: &Field) -> Option<TokenStream> {
    let krate = &model.krate;
    let Field { name, column, .. } = field;
    let (ty, _) = field.value_type();
    let then = match &field.role {
        Role::Id { .. } | Role::Plain => return None,
        Role::Nested { .. } => {
            let collect = quote_spanned!(span_of(field)=> <#ty as #krate::record::Fragment>::collect);
            quote! {
                row.enter(#name, #column);
                #collect(value, out, row);
                row.leave();
            }
        }
        Role::Password { context } => {
            let context = own_context(model, context.as_ref());
            let password =
                quote_spanned!(span_of(field)=> <#ty as #krate::__private::PasswordField>::as_password);
            quote!(out.password(row, #name, #column, #context, #password(value));)
        }
        Role::Token { bound } => {
            let bound = bound_values(model, bound);
            let encode = quote_spanned!(span_of(field)=> <#ty as #krate::record::FieldCodec>::encode);
            quote!(out.bound_field(row, #name, #column, #bound, #encode(value));)
        }
        Role::Value { json } => {
            let encode = if *json {
                quote_spanned!(span_of(field)=> #krate::__private::json::encode::<#ty>)
            } else {
                quote_spanned!(span_of(field)=> <#ty as #krate::record::FieldCodec>::encode)
            };
            let indexes = field.indexes.iter().map(|index| {
                let own = own_context(model, index.context.as_ref());
                let index = index.constant();
                quote!(out.index(#name, &#index, #own, value);)
            });
            quote! {
                out.field(row, #name, #column, #encode(value));
                #(#indexes)*
            }
        }
    };
    Some(with_value(field, &then))
}

/// Collects the values of an index over several fields, unless one of them is absent.
fn index_all(model: &Model, compound: &Compound) -> TokenStream {
    let own = own_context(model, compound.index.context.as_ref());
    let (index, title) = (compound.index.constant(), &compound.title);
    let fields: Vec<_> = model.parts(compound).collect();
    match_all(
        &fields,
        &quote!(self),
        |parts| quote!(out.index(#title, &#index, #own, &(#(#parts),*))),
        &quote!(()),
    )
}

/// Lists the columns that a token is bound to, with their values; either struct has them under the same names.
fn bound_values(model: &Model, bound: &[Ident]) -> TokenStream {
    let bound = bound.iter().filter_map(|name| model.field(name)).map(|field| {
        let Field { ident, column, .. } = field;
        quote_spanned!(span_of(field)=> (#column, &self.#ident))
    });
    quote!(&[#(#bound),*])
}

fn hand_out_index(model: &Model, compound: &Compound) -> TokenStream {
    let ident = &compound.index.ident;
    let optional = model.parts(compound).filter(|field| field.value_type().1);
    let optional: Vec<_> = optional.map(|field| &field.ident).collect();
    if optional.is_empty() {
        return quote!(#ident: sealed.index()?);
    }
    quote! {
        #ident: if #(self.#optional.is_some())&&* {
            ::core::option::Option::Some(sealed.index()?)
        } else {
            ::core::option::Option::None
        }
    }
}

/// Runs code with references to all values of some fields, or other code if one is absent.
pub(super) fn match_all(
    fields: &[&Field],
    record: &TokenStream,
    then: impl FnOnce(&[Ident]) -> TokenStream,
    otherwise: &TokenStream,
) -> TokenStream {
    let parts: Vec<_> = (0..fields.len()).map(|at| format_ident!("part_{at}")).collect();
    let then = then(&parts);
    let patterns = tuple(fields.iter().zip(&parts).map(|(field, part)| {
        if field.value_type().1 {
            quote!(::core::option::Option::Some(#part))
        } else {
            quote!(#part)
        }
    }));
    let values = tuple(fields.iter().map(|field| {
        let ident = &field.ident;
        quote!(&#record.#ident)
    }));
    let is_optional = fields.iter().any(|field| field.value_type().1);
    let otherwise = is_optional.then(|| quote!(_ => #otherwise,));
    quote! {
        match #values {
            #patterns => #then,
            #otherwise
        }
    }
}

/// Writes a tuple, or its only member.
pub(super) fn tuple(of: impl IntoIterator<Item = TokenStream>) -> TokenStream {
    let of: Vec<_> = of.into_iter().collect();
    match of.as_slice() {
        [one] => one.clone(),
        of => quote!((#(#of),*)),
    }
}

fn collect_ciphertext(model: &Model, field: &Field) -> Option<TokenStream> {
    let krate = &model.krate;
    let Field { name, column, .. } = field;
    let (ty, _) = field.value_type();
    let then = match &field.role {
        Role::Id { .. } | Role::Password { .. } | Role::Plain => return None,
        Role::Nested { .. } => quote! {
            row.enter(#name, #column);
            #krate::record::EncryptedFragment::<#ty>::collect(value, out, row);
            row.leave();
        },
        Role::Token { bound } => {
            let bound = bound_values(model, bound);
            quote!(out.bound_field(row, #name, #column, #bound, value);)
        }
        Role::Value { .. } => quote!(out.field(row, #name, #column, value);),
    };
    Some(with_value(field, &then))
}

fn assemble_ciphertext(model: &Model, field: &Field) -> TokenStream {
    let krate = &model.krate;
    let ident = &field.ident;
    let (ty, is_optional) = field.value_type();
    let one = match &field.role {
        Role::Id { .. } | Role::Plain => {
            let ty = &field.ty;
            let clone = quote_spanned!(span_of(field)=> <#ty as ::core::clone::Clone>::clone);
            return quote!(#ident: #clone(&self.#ident));
        }
        Role::Nested { .. } => quote!(<#ty as #krate::record::Fragment>::assemble(value, sealed)?),
        Role::Password { .. } => quote!(sealed.hash()?),
        Role::Token { .. } | Role::Value { .. } => quote!(sealed.ciphertext()?),
    };
    let indexes = field.indexes.iter().map(|index| {
        let index = &index.ident;
        if is_optional {
            quote! {
                #index: match &self.#ident {
                    ::core::option::Option::Some(_) => ::core::option::Option::Some(sealed.index()?),
                    ::core::option::Option::None => ::core::option::Option::None,
                }
            }
        } else {
            quote!(#index: sealed.index()?)
        }
    });
    let indexes = quote!(#(, #indexes)*);
    let needs_value = matches!(field.role, Role::Nested { .. });
    let value = if needs_value { quote!(value) } else { quote!(_) };
    if is_optional {
        quote! {
            #ident: match &self.#ident {
                ::core::option::Option::Some(#value) => ::core::option::Option::Some(#one),
                ::core::option::Option::None => ::core::option::Option::None,
            }
            #indexes
        }
    } else if needs_value {
        quote!(#ident: { let value = &self.#ident; #one } #indexes)
    } else {
        quote!(#ident: #one #indexes)
    }
}

/// Stores the decoded field in `slot`, or `None` if it failed.
fn decode_value(model: &Model, field: &Field, slot: &Ident) -> TokenStream {
    let krate = &model.krate;
    let ident = &field.ident;
    let (ty, is_optional) = field.value_type();
    let one = match &field.role {
        Role::Id { .. } | Role::Plain => {
            return quote!(let #slot = ::core::option::Option::Some(self.#ident););
        }
        Role::Nested { .. } => quote!(#krate::record::EncryptedFragment::<#ty>::assemble(value, opened)),
        Role::Password { .. } => {
            let stored = quote!(<#ty as #krate::__private::PasswordField>::stored);
            return if is_optional {
                quote!(let #slot = ::core::option::Option::Some(self.#ident.map(#stored));)
            } else {
                quote!(let #slot = ::core::option::Option::Some(#stored(self.#ident));)
            };
        }
        Role::Token { .. } | Role::Value { json: false } => {
            quote!(opened.field(<#ty as #krate::record::FieldCodec>::decode))
        }
        Role::Value { json: true } => quote!(opened.field(#krate::__private::json::decode::<#ty>)),
    };
    let value = if matches!(field.role, Role::Nested { .. }) {
        quote!(value)
    } else {
        quote!(_)
    };
    if is_optional {
        quote! {
            let #slot = match self.#ident {
                ::core::option::Option::Some(#value) => #one.map(::core::option::Option::Some),
                ::core::option::Option::None => ::core::option::Option::Some(::core::option::Option::None),
            };
        }
    } else {
        quote! {
            let #slot = { let #value = self.#ident; #one };
        }
    }
}
