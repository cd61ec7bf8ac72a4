//! The fewest steps that reach a wanted agreement: doubled until it is reached, then halved in on, every number by a
//! conversion of its own.

use crate::error::{Error, Result};
use crate::spiking::STEPS;

/// The first number of steps that is tried.
pub const FIRST: u32 = 4;
/// Doublings in a row that bring no agreement beyond the best so far: more will not bring it either.
const VAIN: u32 = 2;

/// `attempt` at a number of steps gives what it made and its agreement. Gives what the fewest steps made that reach
/// `wanted`; more steps are taken to agree no worse.
///
/// # Errors
/// Work: none reaches it; those of `attempt`.
pub fn fewest<T>(wanted: f64, mut attempt: impl FnMut(u32) -> Result<(T, f64)>) -> Result<T> {
    let (mut below, mut steps) = (0, FIRST);
    let (mut best, mut vain) = ((0, -1.0), 0);
    let mut reached = loop {
        let (made, agreement) = attempt(steps)?;
        if agreement >= wanted {
            break made;
        }
        if agreement > best.1 {
            (best, vain) = ((steps, agreement), 0);
        } else {
            vain += 1;
        }
        if vain == VAIN || steps > STEPS.end() / 2 {
            let (at, most) = (best.0, 100.0 * best.1);
            return Err(Error::work(
                "agreement",
                format!(
                    "{:.2} % is not reached in up to {steps} steps: {most:.2} % at T = {at} is the best",
                    100.0 * wanted
                ),
            ));
        }
        (below, steps) = (steps, 2 * steps);
    };
    let mut above = steps;
    while above - below > 1 {
        let middle = below.midpoint(above);
        let (made, agreement) = attempt(middle)?;
        if agreement >= wanted {
            (above, reached) = (middle, made);
        } else {
            below = middle;
        }
    }
    Ok(reached)
}

#[cfg(test)]
mod tests {
    use super::{Result, fewest};

    /// Searches where agreement is `of(steps)`; gives the steps found or the error, and all that was tried.
    fn search(wanted: f64, of: impl Fn(u32) -> f64) -> (Result<u32>, Vec<u32>) {
        let mut tried = vec![];
        let found = fewest(wanted, |steps| {
            tried.push(steps);
            Ok((steps, of(steps)))
        });
        (found, tried)
    }

    #[test]
    fn the_fewest_steps_are_found_whatever_they_are() {
        for least in 1..=300 {
            let (found, tried) = search(0.9, |steps| if steps >= least { 0.9 } else { f64::from(steps) / 1000.0 });
            assert_eq!(found.unwrap(), least);
            assert!(tried.len() <= 16, "{least}: {tried:?}");
        }
    }

    #[test]
    fn a_plateau_ends_the_search_with_what_was_best() {
        let (found, tried) = search(0.95, |steps| if steps >= 16 { 0.89 } else { 0.5 + f64::from(steps) / 1000.0 });
        let error = found.unwrap_err().to_string();
        assert!(error.contains("95.00 %") && error.contains("89.00 % at T = 16"), "{error}");
        assert_eq!(tried, [4, 8, 16, 32, 64]);
    }
}
