//! Checksums that are made before it is known what stands in front of the bytes.
//!
//! crc32c is linear: that of two pieces is that of the first, multiplied by `x` to the power of the bits of the second, plus
//! that of the second, all of it polynomials over two elements modulo the one of the checksum. The multiplication takes as
//! long whatever the length of the pieces. After `crc32_combine` of zlib (Mark Adler).

use crate::crc32c;

/// The polynomial of crc32c without its highest power, the lowest one in the highest bit, as all of them here.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;
const DIGITS: usize = usize::BITS as usize / 4;
/// `x` to the power of the bits of `digit × 16^place` bytes.
const SHIFTS: [[u32; 16]; DIGITS] = shifts();

/// The crc32c of some bytes, ready to be put behind that of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    crc: u32,
    /// `x` to the power of the bits.
    shift: u32,
}

impl Sum {
    /// Of these bytes. The only pass over them.
    pub fn of(bytes: &[u8]) -> Self {
        Self { crc: crc32c(bytes), shift: shift(bytes.len()) }
    }

    /// The crc32c of what `before` is that of, followed by these bytes.
    #[must_use]
    pub const fn behind(self, before: u32) -> u32 {
        multiplied(before, self.shift) ^ self.crc
    }
}

fn shift(bytes: usize) -> u32 {
    let (mut rest, mut product) = (bytes, ONE);
    for digits in &SHIFTS {
        if rest == 0 {
            break;
        }
        if let Some(factor) = digits.get(rest % 16).filter(|_| !rest.is_multiple_of(16)) {
            product = multiplied(product, *factor);
        }
        rest /= 16;
    }
    product
}

const fn shifts() -> [[u32; 16]; DIGITS] {
    let mut shifts = [[ONE; 16]; DIGITS];
    // x to the 8th: the bits of one byte.
    let mut unit = ONE >> 8;
    let mut place = 0;
    while place < DIGITS {
        let mut digit = 1;
        while digit < 16 {
            shifts[place][digit] = multiplied(shifts[place][digit - 1], unit);
            digit += 1;
        }
        unit = multiplied(shifts[place][15], unit);
        place += 1;
    }
    shifts
}

const fn multiplied(a: u32, b: u32) -> u32 {
    let (mut product, mut power, mut bit) = (0, b, ONE);
    while bit != 0 {
        if a & bit != 0 {
            product ^= power;
        }
        power = (power >> 1) ^ (POLYNOMIAL * (power & 1));
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ONE, Sum, multiplied, shift};
    use crate::{crc32c, crc32c_append};

    proptest! {
        #[test]
        fn it_is_the_checksum_of_all_of_it(
            before in proptest::collection::vec(any::<u8>(), 0..200),
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let whole = [&before[..], &bytes].concat();
            prop_assert_eq!(Sum::of(&bytes).behind(crc32c(&before)), crc32c(&whole));
        }

        #[test]
        fn lengths_of_any_size_add_up(a in 0..=usize::MAX / 2, b in 0..=usize::MAX / 2) {
            prop_assert_eq!(multiplied(shift(a), shift(b)), shift(a + b));
        }
    }

    #[test]
    fn a_long_piece_is_no_different() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        assert_eq!(Sum::of(&bytes).behind(crc32c(b"before")), crc32c_append(crc32c(b"before"), &bytes));
        assert_eq!(shift(0), ONE);
        assert_eq!(Sum::of(&[]).behind(7), 7);
    }
}
