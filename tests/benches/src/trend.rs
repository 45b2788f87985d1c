//! Lines of least squares through readings.

/// The slope of the line through values that are one step apart.
pub fn slope(values: impl Iterator<Item = f64>) -> f64 {
    let points: Vec<(f64, f64)> = values.enumerate().map(|(at, value)| (at as f64, value)).collect();
    common_slope(&[points]).unwrap_or(f64::NAN)
}

/// The slope that fits several lines best, each at a height of its own; none where no line has two points.
pub fn common_slope(lines: &[Vec<(f64, f64)>]) -> Option<f64> {
    let (mut over, mut under) = (0.0, 0.0);
    for points in lines {
        let n = points.len() as f64;
        let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / n;
        let (middle, height) = (mean(|p| p.0), mean(|p| p.1));
        for (x, y) in points {
            over += (x - middle) * (y - height);
            under += (x - middle) * (x - middle);
        }
    }
    (under > 0.0).then(|| over / under)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_heights_have_one_slope() {
        let line = |height: f64, begin: u32, end: u32, rise: f64| -> Vec<(f64, f64)> {
            (begin..end).map(|x| (f64::from(x), height + rise * f64::from(x))).collect()
        };
        let two = [line(5.0, 0, 10, 2.0), line(900.0, 50, 60, 2.0)];
        assert!((common_slope(&two).unwrap() - 2.0).abs() < 1e-9);
        // The longer one counts for more.
        let uneven = [line(0.0, 0, 30, 1.0), line(0.0, 0, 3, 10.0)];
        assert!(common_slope(&uneven).unwrap() < 1.1);
        assert_eq!(common_slope(&[vec![(1.0, 1.0)], vec![]]), None);
        assert!((slope([1.0, 3.0, 5.0].into_iter()) - 2.0).abs() < 1e-9);
    }
}
