;; A memory that threads share.
;;
;; must: refused

(component
  (core module $m (memory 1 1 shared))
  (core instance (instantiate $m)))
