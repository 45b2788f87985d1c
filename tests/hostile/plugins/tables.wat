;; A table of four billion entries.
;;
;; must: refused

(component
  (core module $m (table 0xffffffff funcref))
  (core instance (instantiate $m)))
