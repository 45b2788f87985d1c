;; A memory of 64-bit addresses.
;;
;; must: refused

(component
  (core module $m (memory i64 1))
  (core instance (instantiate $m)))
