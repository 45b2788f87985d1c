{{- define "picket.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "picket.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "picket.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "picket.aggregator" -}}
{{- printf "%s-aggregator" (include "picket.fullname" .) }}
{{- end }}

{{- define "picket.agent" -}}
{{- printf "%s-agent" (include "picket.fullname" .) }}
{{- end }}

{{/* What picks out objects of a part: (dict "root" . "part" "agent"). Never changes in the life of a release. */}}
{{- define "picket.selector" -}}
app.kubernetes.io/name: {{ include "picket.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "picket.labels" -}}
{{ include "picket.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* (dict "root" . "image" .Values.agent.image) */}}
{{- define "picket.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* A list of texts as TOML: JSON's form is TOML's too. */}}
{{- define "picket.toml.list" -}}
{{ . | toJson }}
{{- end }}

{{- define "picket.aggregator.config" -}}
# Written by the chart. The environment variables that Kubernetes makes of Services are kept out (enableServiceLinks): they
# begin with PICKET_ as those of the configuration do.
state_dir = "/var/lib/picket-aggregator/state"

[uplink]
listen = "0.0.0.0:9470"
advertise = {{ include "picket.toml.list" (prepend .Values.aggregator.advertise (printf "%s.%s.svc:9470" (include "picket.aggregator" .) .Release.Namespace)) }}
names = {{ include "picket.toml.list" (concat (list (include "picket.aggregator" .) (printf "%s.%s" (include "picket.aggregator" .) .Release.Namespace) (printf "%s.%s.svc" (include "picket.aggregator" .) .Release.Namespace)) .Values.aggregator.names) }}

[http]
listen = "0.0.0.0:9471"

[log]
level = {{ .Values.aggregator.logLevel | toJson }}
format = "json"
{{- with .Values.aggregator.config }}

{{ . | trim }}
{{- end }}
{{- end }}

{{- define "picket.agent.config" -}}
{{- $agent := .root.Values.agent -}}
# Written by the chart.
state_dir = "/var/lib/picket-agent{{ if not $agent.enrolment.secretName }}/state{{ end }}"
# A folder of the agent's own, which it makes in the volume.
cache_dir = "/var/cache/picket/agent"

[log]
level = {{ $agent.logLevel | toJson }}
format = "json"
{{- if $agent.trust.allowUnsigned }}

[trust]
allow_unsigned = true
{{- end }}
{{- if and .gpu $agent.gpu.library }}

[nvml]
library = {{ $agent.gpu.library | toJson }}
{{- end }}
{{- with $agent.config }}

{{ . | trim }}
{{- end }}
{{- end }}

{{- define "picket.agent.policy" -}}
{{- $trust := .Values.agent.trust -}}
{{- if $trust.policy }}
{{- $trust.policy | trim }}
{{- else -}}
# Written by the chart.
policy = 1
{{- if $trust.imageKey }}

[keys.image]
file = "/usr/share/picket/keys/image.pub"
{{- end }}
{{- range $name, $key := $trust.keys }}

[keys.{{ $name }}]
file = "/etc/picket/keys/{{ $name }}.pub"
{{- end }}

[default]
require = "any-of"
{{- end }}
{{- end }}

{{/* The privilege of a DaemonSet: (dict "root" . "gpu" true) */}}
{{- define "picket.agent.privilege" -}}
{{- if .gpu }}{{ .root.Values.agent.gpu.privilege | default .root.Values.agent.privilege }}{{ else }}{{ .root.Values.agent.privilege }}{{ end }}
{{- end }}

{{- define "picket.agent.owner" -}}
{{- if eq (include "picket.agent.privilege" .) "unprivileged" }}65532:65532{{ else }}0:0{{ end }}
{{- end }}
