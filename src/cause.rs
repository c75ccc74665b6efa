//! What lies under an error.

use std::error::Error;

/// The error and what caused it, the outermost first.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The last of the chain: what the system or TLS said. Those around it say less, or repeat an address.
pub fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    chain(error).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_error_is_the_first_cause() {
        let error = anyhow::anyhow!("the disk is full").context("writing failed").context("the file can't be kept");
        let error: &(dyn Error + 'static) = error.as_ref();
        assert_eq!(chain(error).count(), 3);
        assert_eq!(innermost(error).to_string(), "the disk is full");
        let alone = std::io::Error::other("alone");
        assert_eq!(innermost(&alone).to_string(), "alone");
    }
}
