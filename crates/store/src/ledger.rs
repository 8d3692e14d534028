//! The ledger: how much of a resource a scope uses, and its own limit if it has one.

/// A ledger row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Never below 0. May lie above a limit that was lowered later.
    pub used: i64,
    /// The row's own limit: negative is unlimited, `None` means that the resource's default holds.
    pub limit: Option<i64>,
}

impl Usage {
    /// Whether `delta` more may be used, and if not, the limit that stands against it. Giving back is always allowed.
    pub(crate) fn refused(&self, delta: i64, default_limit: Option<i64>) -> Option<i64> {
        let limit = self.limit.or(default_limit).filter(|limit| *limit >= 0)?;
        (delta > 0 && self.used.saturating_add(delta) > limit).then_some(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn own_limit_then_default_then_none() {
        for (own, default, delta, refused) in [
            (None, None, 1_000_000, None),
            (None, Some(10), 2, None),
            (None, Some(10), 3, Some(10)),
            (Some(9), Some(100), 2, Some(9)),
            (Some(-1), Some(1), 99, None),
            (Some(0), None, -3, None),
            (Some(0), None, 0, None),
            (Some(i64::MAX), None, i64::MAX, None),
        ] {
            let usage = Usage { used: 8, limit: own };
            assert_eq!(usage.refused(delta, default), refused, "{own:?} {default:?} {delta}");
        }
    }
}
