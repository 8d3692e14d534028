//! Paging by limit and marker.

use crate::Query;
use base::{Fault, Result, limits};

/// What a client asks for: at most `limit` items, after `marker`.
#[derive(Clone, Debug, PartialEq)]
pub struct PageRequest {
    pub limit: usize,
    /// The client gave a limit itself (links to the next page depend on it in some services).
    pub limited: bool,
    pub marker: Option<String>,
}

impl PageRequest {
    /// Reads `limit` and `marker`. A limit of 0 means the service's largest page, as in Nova and Neutron.
    pub fn read(query: &Query) -> Result<PageRequest> {
        let asked = query.number("limit").map_err(|_| {
            Fault::invalid(format!("Invalid input for query parameter limit: '{}'.", query.get("limit").unwrap_or("")))
        })?;
        let limit = match asked {
            None | Some(0) => limits::PAGE,
            Some(n) => usize::try_from(n).unwrap_or(limits::PAGE).min(limits::PAGE),
        };
        let marker = query.get("marker").filter(|marker| !marker.is_empty()).map(str::to_owned);
        Ok(PageRequest { limit, limited: asked.is_some_and(|n| n > 0), marker })
    }
}

/// A page of items, and whether more follow.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub more: bool,
}

impl<T> Page<T> {
    /// Cuts a page out of the whole list in its order. Invalid when the marker names none of them.
    pub fn cut(items: impl IntoIterator<Item = T>, request: &PageRequest, id: impl Fn(&T) -> &str) -> Result<Page<T>> {
        let mut items = items.into_iter();
        if let Some(marker) = &request.marker
            && !items.by_ref().any(|item| id(&item) == marker)
        {
            return Err(Fault::invalid(format!("marker [{marker}] not found")));
        }
        let mut page: Vec<T> = items.take(request.limit + 1).collect();
        let more = page.len() > request.limit;
        page.truncate(request.limit);
        Ok(Page { items: page, more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_the_list_once() {
        let all: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let mut seen = Vec::new();
        let mut marker = None;
        loop {
            let request = PageRequest { limit: 3, limited: true, marker };
            let page = Page::cut(all.clone(), &request, |item| item).unwrap();
            seen.extend(page.items.clone());
            marker = page.items.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, all);
        let lost = PageRequest { limit: 3, limited: true, marker: Some("x".into()) };
        assert!(Page::cut(all, &lost, |item| item).is_err());
    }
}
