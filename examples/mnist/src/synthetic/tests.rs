//! That the digits are the same everywhere, and that they are digits.

use super::*;

fn pixels(dataset: &Dataset) -> &[u8] {
    match dataset.features() {
        Features::U8 { bytes, .. } => bytes,
        Features::F32(_) => panic!("digits are drawn in bytes"),
    }
}

#[test]
fn the_digest_is_that_of_every_machine() {
    let expected = "6b20385229d6850c74c0663de244d765e659d838b40d5a884506b25655bd1a97";
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| digits(1, 500)).digest(), expected, "{threads} threads");
    }
}

#[test]
fn a_longer_set_begins_with_a_shorter_and_seeds_differ() {
    let (short, long, other) = (digits(1, 20), digits(1, 50), digits(2, 20));
    assert_eq!(pixels(&short), &pixels(&long)[..20 * SIDE * SIDE]);
    assert_ne!(pixels(&short), pixels(&other));
}

#[test]
fn every_digit_occurs_about_equally_often() {
    let digits = digits(3, 5000);
    for class in 0..CLASSES as u32 {
        let count = digits.labels().unwrap().iter().filter(|&&label| label == class).count();
        assert!((400..600).contains(&count), "{class}: {count}");
    }
}

#[test]
fn images_are_mostly_paper_with_ink_in_the_middle() {
    let digits = digits(4, 1000);
    let ink = |range: std::ops::Range<usize>| {
        let pixels = pixels(&digits).iter().enumerate();
        let inside =
            pixels.filter(|(i, _)| range.contains(&(i / SIDE % SIDE)) && range.contains(&(i % SIDE)));
        let (count, inked) =
            inside.fold((0, 0), |(count, inked), (_, &p)| (count + 1, inked + usize::from(p > 0)));
        inked as f64 / f64::from(count)
    };
    let (all, middle) = (ink(0..SIDE), ink(6..22));
    assert!((0.1..0.25).contains(&all), "{all}");
    assert!(middle > 1.5 * all, "{middle} {all}");
}

/// The mean image of each class, learned from one set, recognizes digits of another far better than chance,
/// but the task is not one that mean images solve.
#[test]
fn digits_can_be_told_apart_but_not_trivially() {
    let (train, test) = train_and_test(4000, 1000);
    let mut means = vec![[0.0f64; SIDE * SIDE]; CLASSES];
    for (image, &label) in pixels(&train).chunks(SIDE * SIDE).zip(train.labels().unwrap()) {
        means[label as usize].iter_mut().zip(image).for_each(|(sum, &pixel)| *sum += f64::from(pixel));
    }
    for (class, mean) in means.iter_mut().enumerate() {
        let count = train.labels().unwrap().iter().filter(|&&label| label as usize == class).count();
        mean.iter_mut().for_each(|sum| *sum /= count as f64);
    }
    let distance = |image: &[u8], mean: &[f64]| -> f64 {
        image.iter().zip(mean).map(|(&pixel, mean)| (f64::from(pixel) - mean).powi(2)).sum()
    };
    let right = pixels(&test).chunks(SIDE * SIDE).zip(test.labels().unwrap()).filter(|(image, label)| {
        let nearest =
            (0..CLASSES).min_by(|&a, &b| distance(image, &means[a]).total_cmp(&distance(image, &means[b])));
        nearest == Some(**label as usize)
    });
    let accuracy = right.count() as f64 / test.len() as f64;
    assert!((0.5..0.9).contains(&accuracy), "{accuracy}");
}
