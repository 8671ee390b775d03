{{/* All names are made here. 50 characters leave room for the suffixes of Jobs, CronJobs and Pods. */}}
{{- define "finetune.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "finetune.fullname" -}}
{{- $name := include "finetune.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* True unless serviceAccount.create is false. */}}
{{- define "finetune.makesServiceAccount" -}}
{{- if ne (toJson (.Values.serviceAccount).create) "false" }}true{{ end -}}
{{- end }}

{{- define "finetune.serviceAccountName" -}}
{{- if include "finetune.makesServiceAccount" . -}}
{{- (.Values.serviceAccount).name | default (include "finetune.fullname" .) -}}
{{- else -}}
{{- (.Values.serviceAccount).name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "finetune.configName" -}}
{{- printf "%s-%s" (include "finetune.fullname" .) (include "finetune.hash" .) -}}
{{- end }}

{{- define "finetune.jobName" -}}
{{- printf "%s-%s" (include "finetune.fullname" .) (include "finetune.hash" .) -}}
{{- end }}

{{/* Hash of the Pod template, the settings and all other immutable fields of a Job: a change creates a new Job, so that an
upgrade never fails with "field is immutable". Mutable fields (backoffLimit, the chart's version) are not part of it. */}}
{{- define "finetune.hash" -}}
{{- $podTemplate := include "finetune.podTemplate" (dict "root" . "configName" "") -}}
{{- $queue := (.Values.kueue).queueName | default "" -}}
{{- printf "%s\n%s\n%s\n%s" $podTemplate (include "finetune.config" .) (include "finetune.podFailurePolicy" .) $queue | sha256sum | trunc 8 -}}
{{- end }}

{{- define "finetune.selectorLabels" -}}
app.kubernetes.io/name: {{ include "finetune.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finetune.labels" -}}
{{ include "finetune.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* A value as text. Numbers from a values file are floats to Helm, which prints them as 5.176135e+06; JSON does not. */}}
{{- define "finetune.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end }}

{{/* Labels, annotations: a map whose values must be strings. */}}
{{- define "finetune.strings" -}}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }}: {{ include "finetune.text" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Remove nulls, which are a user's way to drop a default, from a map in place. */}}
{{- define "finetune.dropNulls" -}}
{{- $map := . -}}
{{- range $key, $value := . -}}
{{- if kindIs "invalid" $value }}{{ $_ := unset $map $key }}
{{- else if kindIs "map" $value }}{{ include "finetune.dropNulls" $value }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "finetune.image" -}}
{{- $image := .Values.image | default dict -}}
{{- $repository := required "image.repository must be given: the image that the job runs" $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (include "finetune.text" ($image.tag | default .Chart.AppVersion)) -}}
{{- end -}}
{{- end }}

{{- define "finetune.command" -}}
{{- .Values.command | default "run" -}}
{{- end }}

{{/* The number of GPUs that the Pod requests: only `run` needs any, and `doctor` checks what it needs. */}}
{{- define "finetune.gpus" -}}
{{- if has (include "finetune.command" .) (list "run" "doctor") }}{{ int (.Values.gpu).count }}{{ else }}0{{ end -}}
{{- end }}

{{- define "finetune.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- if .Values.spot }}15{{ else }}30{{ end -}}
{{- else -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end }}

{{/* The bytes of a quantity such as 20Gi. */}}
{{- define "finetune.bytes" -}}
{{- $text := include "finetune.text" . -}}
{{- $units := dict "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "" 1 -}}
{{- $number := regexFind "^[0-9]+" $text -}}
{{- mul (int64 $number) (int64 (get $units (trimPrefix $number $text))) -}}
{{- end }}

{{- define "finetune.cacheType" -}}
{{- (.Values.cache).type | default "emptyDir" -}}
{{- end }}

{{/* The settings file: config as given, and the defaults that follow from the chart's other values. */}}
{{- define "finetune.config" -}}
{{- $config := deepCopy (.Values.config | default dict) -}}
{{- $_ := include "finetune.dropNulls" $config -}}
{{- range list "output" "device" "cache" "events" -}}
{{- if not (hasKey $config .) }}{{ $_ := set $config . dict }}{{ end -}}
{{- end -}}
{{- if not $config.output.uri }}{{ $_ := set $config.output "uri" "/output" }}{{ end -}}
{{- if and (gt (include "finetune.gpus" . | int) 0) (not (hasKey $config.device "require_gpu")) }}{{ $_ := set $config.device "require_gpu" true }}{{ end -}}
{{- if not $config.cache.dir -}}
{{- $_ := set $config.cache "dir" "/cache" -}}
{{- if and (ne (include "finetune.cacheType" .) "existingClaim") (.Values.cache).sizeLimit (not (hasKey $config.cache "max_bytes")) -}}
{{- $_ := set $config.cache "max_bytes" (div (mul (include "finetune.bytes" .Values.cache.sizeLimit | int64) 3) 4) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config.events "enabled" (ternary true false (eq (include "finetune.events" .) "true")) -}}
{{- range $group, $settings := $config -}}
{{- if and (kindIs "map" $settings) (not $settings) }}{{ $_ := unset $config $group }}{{ end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- define "finetune.events" -}}
{{- if (.Values.events).enabled }}true{{ end -}}
{{- end }}

{{- define "finetune.imagePullPolicy" -}}
{{- with (.Values.image).pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{/* Everything that Pod Security "restricted" requires. Not a value: the job never needs more privileges. */}}
{{- define "finetune.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "finetune.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
{{- end }}

{{/* Of a container: {requests, limits} without nulls, and the GPU once, in the limits. */}}
{{- define "finetune.resources" -}}
{{- $resources := deepCopy (.resources | default dict) -}}
{{- $_ := include "finetune.dropNulls" $resources -}}
{{- if .gpus -}}
{{- $limits := $resources.limits | default dict -}}
{{- $_ := set $limits .gpuResource .gpus -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- range $key, $value := $resources -}}
{{- if not $value }}{{ $_ := unset $resources $key }}{{ end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* Shared by the job's container and that of `helm test`, so that the test runs with the job's identity. */}}
{{- define "finetune.env" -}}
{{- with (.Values.googleCredentials).existingSecret }}
- name: GOOGLE_APPLICATION_CREDENTIALS
  value: /var/run/secrets/google/key.json
{{- end }}
{{- range .Values.extraEnv }}
- name: {{ .name }}
  {{- if hasKey . "value" }}
  value: {{ include "finetune.text" .value | quote }}
  {{- end }}
  {{- with .valueFrom }}
  valueFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "finetune.volumeMounts" -}}
- name: config
  mountPath: /etc/finetune
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if not ((.Values.config).output).uri }}
- name: output
  mountPath: /output
{{- end }}
{{- with (.Values.googleCredentials).existingSecret }}
- name: google-credentials
  mountPath: /var/run/secrets/google
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Takes root and configName, which is empty for the hash: the name contains the hash. */}}
{{- define "finetune.volumes" -}}
{{- $ := .root -}}
- name: config
  configMap:
    name: {{ .configName | quote }}
- name: tmp
  emptyDir:
    sizeLimit: 2Gi
{{- if not (($.Values.config).output).uri }}
- name: output
  emptyDir:
    sizeLimit: 2Gi
{{- end }}
{{- with ($.Values.googleCredentials).existingSecret }}
- name: google-credentials
  secret:
    secretName: {{ . }}
    items:
      - key: {{ ($.Values.googleCredentials).key | default "key.json" }}
        path: key.json
{{- end }}
{{- with $.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
