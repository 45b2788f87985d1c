{{/* The files of an agent's configuration, as the data of a ConfigMap: (dict "root" . "gpu" true) */}}
{{- define "picket.agent.files" -}}
{{- $root := .root -}}
{{- $agent := $root.Values.agent -}}
agent.toml: |
  {{- include "picket.agent.config" . | nindent 2 }}
policy.toml: |
  {{- include "picket.agent.policy" $root | nindent 2 }}
{{- range $name, $key := $agent.trust.keys }}
key.{{ $name }}.pub: |
  {{- $key | trim | nindent 2 }}
{{- end }}
{{- range $plugin := include "picket.agent.plugins" . | fromJsonArray }}
plugin.{{ $plugin }}.toml: |
  {{- tpl ($root.Files.Get (printf "files/plugins/%s.toml" $plugin)) $root | trim | nindent 2 }}
{{- end }}
{{- range $name, $text := $agent.extraPlugins }}
extra.{{ $name }}.toml: |
  {{- $text | trim | nindent 2 }}
{{- end }}
{{- end }}

{{/* Which of the chart's own plugins, as JSON. */}}
{{- define "picket.agent.plugins" -}}
{{- $names := list -}}
{{- range $name, $on := .root.Values.agent.plugins }}{{ if $on }}{{ $names = append $names $name }}{{ end }}{{ end }}
{{- if .gpu }}{{ $names = append $names "gpu" }}{{ end }}
{{- $names | sortAlpha | toJson }}
{{- end }}

{{- define "picket.agent.objects" -}}
{{- $root := .root }}
{{- $agent := $root.Values.agent }}
{{- $part := dict "root" $root "part" (ternary "agent-gpu" "agent" .gpu) }}
{{- $name := printf "%s%s" (include "picket.agent" $root) (ternary "-gpu" "" .gpu) }}
{{- $privilege := include "picket.agent.privilege" . }}
{{- $files := include "picket.agent.files" . -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "picket.labels" $part | nindent 4 }}
data:
  {{- $files | nindent 2 }}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "picket.labels" $part | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "picket.selector" $part | nindent 6 }}
  updateStrategy:
    {{- toYaml $agent.updateStrategy | nindent 4 }}
  template:
    metadata:
      labels:
        {{- include "picket.labels" $part | nindent 8 }}
      annotations:
        checksum/config: {{ $files | sha256sum }}
        {{- with $agent.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "picket.agent" $root }}
      automountServiceAccountToken: false
      # Kubernetes would set a variable PICKET_NAME_PORT for a Service picket-name: a key that the agent does not know and refuses.
      enableServiceLinks: false
      # The node's interfaces and processes, not the pod's.
      hostNetwork: true
      hostPID: true
      dnsPolicy: ClusterFirstWithHostNet
      terminationGracePeriodSeconds: 45
      {{- if and .gpu $agent.gpu.runtimeClassName }}
      runtimeClassName: {{ $agent.gpu.runtimeClassName }}
      {{- end }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $agent.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- if $agent.enrolment.secretName }}
      initContainers:
        # Makes the node's folder the agent's, and enrols the node where that was not done before.
        - name: enrol
          image: {{ include "picket.image" (dict "root" $root "image" $agent.image) }}
          imagePullPolicy: {{ $agent.image.pullPolicy }}
          args:
            - enroll
            - --if-needed
            - --owner={{ include "picket.agent.owner" . }}
            - --token-file=/run/picket-enrolment/token
            - --node=$(NODE_NAME)
            - --config=/etc/picket/agent.toml
          env:
            - name: NODE_NAME
              valueFrom:
                fieldRef: { fieldPath: spec.nodeName }
          securityContext:
            runAsUser: 0
            runAsGroup: 0
            runAsNonRoot: false
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            # To give the folder to the agent's user, and to write into it afterwards.
            capabilities: { drop: [ALL], add: [CHOWN, DAC_OVERRIDE, FOWNER] }
            seccompProfile: { type: RuntimeDefault }
          resources:
            {{- toYaml $agent.resources | nindent 12 }}
          volumeMounts:
            - { name: config, mountPath: /etc/picket, readOnly: true }
            - { name: state, mountPath: /var/lib/picket-agent }
            - { name: enrolment, mountPath: /run/picket-enrolment, readOnly: true }
      {{- end }}
      containers:
        - name: agent
          image: {{ include "picket.image" (dict "root" $root "image" $agent.image) }}
          imagePullPolicy: {{ $agent.image.pullPolicy }}
          args: [run, --config, /etc/picket/agent.toml]
          {{- if and .gpu $agent.gpu.runtimeClassName }}
          env:
            # Asked of the runtime, not of the scheduler: every GPU is seen, none is taken.
            - { name: NVIDIA_VISIBLE_DEVICES, value: all }
            - { name: NVIDIA_DRIVER_CAPABILITIES, value: utility }
          {{- end }}
          # The agent's server asks nobody for a name, so it is on the node's loopback interface, from where the kubelet asks.
          startupProbe:
            httpGet: { host: 127.0.0.1, port: 9460, path: /healthz }
            periodSeconds: 2
            failureThreshold: 30
          readinessProbe:
            httpGet: { host: 127.0.0.1, port: 9460, path: /readyz }
            periodSeconds: 10
            timeoutSeconds: 5
          livenessProbe:
            httpGet: { host: 127.0.0.1, port: 9460, path: /healthz }
            periodSeconds: 30
            timeoutSeconds: 10
            failureThreshold: 3
          securityContext:
            readOnlyRootFilesystem: true
            {{- if eq $privilege "privileged" }}
            privileged: true
            runAsUser: 0
            runAsGroup: 0
            {{- else if eq $privilege "root" }}
            allowPrivilegeEscalation: false
            runAsUser: 0
            runAsGroup: 0
            # Workers with a user of their own; files of others; the kernel's log.
            capabilities: { drop: [ALL], add: [SETUID, SETGID, SETPCAP, DAC_READ_SEARCH, SYSLOG] }
            {{- else }}
            allowPrivilegeEscalation: false
            runAsUser: 65532
            runAsGroup: 65532
            runAsNonRoot: true
            capabilities: { drop: [ALL] }
            {{- end }}
            seccompProfile: { type: {{ $agent.seccompProfile }} }
          resources:
            {{- toYaml $agent.resources | nindent 12 }}
          volumeMounts:
            - { name: config, mountPath: /etc/picket, readOnly: true }
            - { name: state, mountPath: /var/lib/picket-agent }
            - { name: cache, mountPath: /var/cache/picket }
            - { name: tmp, mountPath: /tmp }
            {{- if $agent.hostRoot }}
            - { name: host, mountPath: /host, readOnly: true, mountPropagation: HostToContainer }
            {{- end }}
            {{- with $agent.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap:
            name: {{ $name }}
            items:
              - { key: agent.toml, path: agent.toml }
              - { key: policy.toml, path: policy.toml }
              {{- range $key, $_ := $agent.trust.keys }}
              - { key: key.{{ $key }}.pub, path: keys/{{ $key }}.pub }
              {{- end }}
              {{- range $plugin := include "picket.agent.plugins" . | fromJsonArray }}
              - { key: plugin.{{ $plugin }}.toml, path: conf.d/40-{{ $plugin }}.toml }
              {{- end }}
              {{- range $extra, $_ := $agent.extraPlugins }}
              - { key: extra.{{ $extra }}.toml, path: conf.d/60-{{ $extra }}.toml }
              {{- end }}
        - name: state
          {{- if $agent.enrolment.secretName }}
          hostPath: { path: {{ $agent.state.hostPath }}, type: DirectoryOrCreate }
          {{- else }}
          emptyDir: {}
          {{- end }}
        {{- with $agent.enrolment.secretName }}
        - name: enrolment
          secret: { secretName: {{ . }}, defaultMode: 0400, items: [{ key: token, path: token }] }
        {{- end }}
        - name: cache
          emptyDir: { sizeLimit: {{ $agent.cacheSize }} }
        - name: tmp
          emptyDir: { sizeLimit: 64Mi }
        {{- if $agent.hostRoot }}
        - name: host
          hostPath: { path: /, type: Directory }
        {{- end }}
        {{- with $agent.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- $selector := merge (dict) $agent.nodeSelector }}
      {{- if .gpu }}
      {{- $_ := set $selector $agent.gpu.nodeLabel.name $agent.gpu.nodeLabel.value }}
      {{- end }}
      {{- with $selector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if and $agent.gpu.enabled (not .gpu) }}
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - { key: {{ $agent.gpu.nodeLabel.name }}, operator: NotIn, values: [{{ $agent.gpu.nodeLabel.value | quote }}] }
      {{- end }}
      {{- with $agent.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
