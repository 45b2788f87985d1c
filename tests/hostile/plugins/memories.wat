;; A memory of four gigabytes from the start.
;;
;; must: refused

(component
  (core module $m (memory 65536))
  (core instance (instantiate $m)))
