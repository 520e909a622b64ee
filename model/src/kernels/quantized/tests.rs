use proptest::prelude::*;

use super::product::products_with;
use super::*;
use crate::kernels::pool::Pool;

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| (((i + 77 * seed) * 2_654_435_761) % 1009) as f32 / 500.0 - 1.0).collect()
}

fn matrix(format: Format, outputs: usize, width: usize, weights: &[f32]) -> QuantizedMatrix {
    let row = |row: usize, into: &mut [f32]| {
        into.copy_from_slice(&weights[row * width..][..width]);
        Ok(())
    };
    QuantizedMatrix::new(format, outputs, width, row).unwrap()
}

fn product(instructions: Instructions, matrix: &QuantizedMatrix, x: &[f32]) -> Vec<f32> {
    let mut rows = QuantizedRows::default();
    rows.quantize(x, matrix.width());
    let mut out = vec![f32::NAN; rows.rows() * matrix.outputs()];
    products_with(instructions, &Pool::new(1), &rows, &[Product::new(matrix, &mut out)]);
    out
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn all_instructions_give_the_same_bits_and_the_right_product() {
    println!("instructions: {:?}", Instructions::all());
    for (outputs, width) in [(1, 1), (3, 5), (16, 32), (33, 40), (70, 288), (200, 1000)] {
        let weights = numbers(outputs * width, 1);
        let x = numbers(35 * width, 2);
        for matrix in [Format::Q8, Format::Q4].map(|format| matrix(format, outputs, width, &weights)) {
            for rows in (1..=17).chain([35]) {
                let x = &x[..rows * width];
                let want = product(Instructions::Plain, &matrix, x);
                for instructions in Instructions::all() {
                    assert_eq!(
                        bits(&product(instructions, &matrix, x)),
                        bits(&want),
                        "{instructions:?} {rows} {width}"
                    );
                }
                for (row, x) in x.chunks(width).enumerate() {
                    for output in [0, outputs / 2, outputs - 1] {
                        let mut weights = vec![0.0; width];
                        matrix.copy_row(output, &mut weights);
                        let exact: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                        let size: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(w * x).powi(2)).sum();
                        let got = f64::from(want[row * outputs + output]);
                        let allowed = 0.02 * size.sqrt().max(0.05);
                        assert!((got - exact).abs() <= allowed, "{got} instead of {exact}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_largest_sums_there_are_do_not_overflow() {
    for format in [Format::Q8, Format::Q4] {
        for (weight, value) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
            let matrix = matrix(format, 20, 64, &[weight; 20 * 64]);
            for instructions in Instructions::all() {
                for got in product(instructions, &matrix, &[value; 64]) {
                    assert!((got - 64.0 * weight * value).abs() < 0.1, "{instructions:?} {format:?}: {got}");
                }
            }
        }
    }
}

#[test]
fn several_products_on_several_threads_are_those_of_one_each() {
    let width = 512;
    let all: Vec<QuantizedMatrix> =
        [600, 40, 1000].map(|outputs| matrix(Format::Q8, outputs, width, &numbers(outputs * width, outputs))).into();
    let x = numbers(5 * width, 3);
    let mut rows = QuantizedRows::default();
    rows.quantize(&x, width);
    let mut out: Vec<Vec<f32>> = all.iter().map(|matrix| vec![0.0; 5 * matrix.outputs()]).collect();
    let [a, b, c] = &mut out[..] else { unreachable!() };
    let each = [Product::new(&all[0], a), Product::new(&all[1], b), Product::new(&all[2], c)];
    products(&Pool::new(3), &rows, &each);
    for (matrix, out) in all.iter().zip(&out) {
        assert_eq!(bits(out), bits(&product(Instructions::Plain, matrix, &x)));
    }
}

#[test]
fn weights_keep_close_to_what_they_were() {
    let (outputs, width) = (64, 256);
    // Something like a normal distribution.
    let uniform = numbers(outputs * width * 4, 9);
    let weights: Vec<f32> = uniform.chunks(4).map(|four| four.iter().sum::<f32>() * 0.01).collect();
    let size: f32 = weights.iter().map(|w| w * w).sum();
    for (format, allowed) in [(Format::Q8, 0.005), (Format::Q4, 0.075)] {
        let matrix = matrix(format, outputs, width, &weights);
        let mut error = 0.0;
        for (output, row) in weights.chunks(width).enumerate() {
            let mut got = vec![0.0; width];
            matrix.copy_row(output, &mut got);
            error += got.iter().zip(row).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        }
        let relative = (error / size).sqrt();
        println!("{format:?}: {relative}");
        assert!(relative < allowed, "{format:?}: {relative}");
    }
    assert_eq!(matrix(Format::Q8, outputs, width, &weights).bytes(), outputs * width * 17 / 16);
    assert_eq!(matrix(Format::Q4, outputs, width, &weights).bytes(), outputs * width * 73 / 128);
}

#[test]
fn what_cannot_be_quantised_is_refused_or_stays_visible() {
    for bad in [f32::NAN, f32::INFINITY, -1e7] {
        let mut weights = numbers(3 * 40, 1);
        weights[85] = bad;
        let row = |row: usize, into: &mut [f32]| {
            into.copy_from_slice(&weights[row * 40..][..40]);
            Ok(())
        };
        let made = QuantizedMatrix::new(Format::Q4, 3, 40, row);
        assert!(matches!(made, Err(QuantizeError::TooLarge { element: 85, .. })));
    }
    let ones = matrix(Format::Q8, 16, 64, &[1.0; 16 * 64]);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = [1.0; 64];
        x[40] = bad;
        assert!(product(Instructions::best(), &ones, &x).iter().all(|y| y.is_nan()));
    }
    assert!(product(Instructions::best(), &matrix(Format::Q8, 0, 8, &[]), &[1.0; 8]).is_empty());
    assert!(product(Instructions::best(), &ones, &[]).is_empty());
}

proptest! {
    #[test]
    fn a_row_has_the_same_bits_in_any_company(
        four in any::<bool>(),
        outputs in 1_usize..50,
        width in 1_usize..150,
        x in prop::collection::vec(-100.0_f32..100.0, 150 * 20),
        rows in 1_usize..=20,
        chosen in any::<prop::sample::Index>(),
    ) {
        let matrix = matrix(if four { Format::Q4 } else { Format::Q8 }, outputs, width, &numbers(outputs * width, 5));
        let x = &x[..rows * width];
        let together = product(Instructions::best(), &matrix, x);
        let row = chosen.index(rows);
        let alone = product(Instructions::best(), &matrix, &x[row * width..][..width]);
        prop_assert_eq!(bits(&alone), bits(&together[row * outputs..][..outputs]));
    }
}
