//! Generates a record's description of its columns.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use crate::attributes::{Context, PairValue};
use crate::field::{Field, Role, span_of};
use crate::index::Index;
use crate::model::{Kind, Model};

pub(super) fn write(model: &Model) -> TokenStream {
    let krate = &model.krate;
    let head = head(model);
    let fields = model.fields.iter().filter_map(|field| describe(model, field));
    let compounds = model
        .compounds
        .iter()
        .map(|compound| index(model, &compound.index));
    quote! {
        fn describe(out: &mut #krate::__private::Description) {
            #head
            #(#fields)*
            #(#compounds)*
        }
    }
}

fn head(model: &Model) -> Option<TokenStream> {
    let Kind::Record {
        table,
        sql_table,
        context,
    } = &model.kind
    else {
        return None;
    };
    let krate = &model.krate;
    let ids = model.ids().map(|field| {
        let Field { ty, sql, .. } = field;
        let kind = match &field.role {
            Role::Id { kind: Some(kind) } => quote!(#krate::record::RowIdKind::#kind),
            _ => quote_spanned!(span_of(field)=> <#ty as #krate::record::RowIdPart>::KIND),
        };
        quote!(out.id(#sql, #kind);)
    });
    let pairs = context.iter().map(|pair| {
        let key = &pair.key;
        match &pair.value {
            PairValue::Literal(text) => quote!(out.context_value(#key, #text);),
            PairValue::Field(ident) => {
                let sql = model.field(ident).map(|field| &field.sql);
                quote!(out.context_column(#key, #sql);)
            }
        }
    });
    Some(quote! {
        out.table(#table, #sql_table);
        #(#ids)*
        #(#pairs)*
    })
}

fn describe(model: &Model, field: &Field) -> Option<TokenStream> {
    let krate = &model.krate;
    let Field { column, sql, .. } = field;
    let (ty, _) = field.value_type();
    match &field.role {
        Role::Id { .. } | Role::Plain => None,
        Role::Nested { prefix } => Some(quote! {
            out.enter(#column, #prefix);
            <#ty as #krate::record::Fragment>::describe(out);
            out.leave();
        }),
        Role::Password { context } => {
            let own = own_context(model, context.as_ref());
            Some(quote!(out.password(#column, #sql, #own);))
        }
        Role::Token { bound } => {
            let bound = bound.iter().filter_map(|name| model.field(name));
            let bound = bound.map(|field| &field.column);
            let format = quote!(<#ty as #krate::record::FieldCodec>::FORMAT);
            Some(quote!(out.bound_field(#column, #sql, #format, &[#(#bound),*]);))
        }
        Role::Value { json } => {
            let format = if *json {
                quote!(#krate::__private::json::FORMAT)
            } else {
                quote!(<#ty as #krate::record::FieldCodec>::FORMAT)
            };
            let indexes = field.indexes.iter().map(|one| index(model, one));
            Some(quote! {
                out.field(#column, #sql, #format);
                #(#indexes)*
            })
        }
    }
}

fn index(model: &Model, index: &Index) -> TokenStream {
    let own = own_context(model, index.context.as_ref());
    let (constant, sql) = (index.constant(), &index.sql);
    quote!(out.index(#sql, &#constant, #own);)
}

/// Lists the pairs of an index's or a password's own context.
fn own_context(model: &Model, own: Option<&Context>) -> TokenStream {
    let krate = &model.krate;
    let pairs = own.iter().flat_map(|own| &own.pairs).map(|pair| {
        let key = &pair.key;
        let source = match &pair.value {
            PairValue::Literal(text) => quote!(Value(::core::convert::From::from(#text))),
            PairValue::Field(ident) => {
                let sql = model.field(ident).map(|field| &field.sql);
                quote!(Column(::core::convert::From::from(#sql)))
            }
        };
        quote!((#key, #krate::record::ContextSource::#source))
    });
    quote!(::std::vec![#(#pairs),*])
}
