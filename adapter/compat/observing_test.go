package compat

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getsentry/sentry-go"
	sentrygin "github.com/getsentry/sentry-go/gin"
	"github.com/gin-contrib/logger"
	ginslog "github.com/gin-contrib/slog"
	ginzap "github.com/gin-contrib/zap"
	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	ginprometheus "github.com/zsais/go-gin-prometheus"
	"go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/gin-usher/usher/adapter"
)

// onceForAll is what every row of this kind has to say.
const onceForAll = "above the route it tells of every poll, with the `sid` in the query; in `UseOnce` of the handshake alone, by its status and its own duration"

var observing = []row{
	{name: "gin.Logger", place: useOnce, note: onceForAll, build: logTo(`\|\s*(\d{3})\s*\|`, func(out *buffer) gin.HandlerFunc {
		return gin.LoggerWithWriter(out)
	})},
	{name: "gin-contrib/logger", module: "github.com/gin-contrib/logger", place: useOnce, build: logTo(`status=(\d{3})`, func(out *buffer) gin.HandlerFunc {
		return logger.SetLogger(logger.WithWriter(out))
	})},
	{name: "gin-contrib/zap", module: "github.com/gin-contrib/zap", place: useOnce, build: logTo(`"status":(\d{3})`, func(out *buffer) gin.HandlerFunc {
		core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(out), zap.InfoLevel)
		return ginzap.Ginzap(zap.New(core), time.RFC3339, true)
	})},
	{name: "gin-contrib/slog", module: "github.com/gin-contrib/slog", place: useOnce, build: logTo(`status=(\d{3})`, func(out *buffer) gin.HandlerFunc {
		return ginslog.SetLogger(ginslog.WithWriter(out))
	})},
	{name: "sentry-go/gin", module: "github.com/getsentry/sentry-go/gin", place: useOnce, build: buildSentry,
		note: "the hub in `c.Get` is the handshake's; handlers of events begin transactions of their own"},
	{name: "otelgin", module: "go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin", place: useOnce, build: buildOtel},
	{name: "go-gin-prometheus", module: "github.com/zsais/go-gin-prometheus", place: useOnce, build: buildPrometheus,
		note: "its label `url` is the whole URL: above the route every connection that polls makes new time series; set `ReqCntURLLabelMappingFn` to `c.FullPath()` there"},
}

// logTo builds a logger that writes to a buffer.
func logTo(status string, make func(*buffer) gin.HandlerFunc) func(*testing.T, *adapter.Server) *fixture {
	return func(*testing.T, *adapter.Server) *fixture {
		var out buffer
		return &fixture{mw: []gin.HandlerFunc{make(&out)}, wrote: out.String, status: regexp.MustCompile(status)}
	}
}

// sentrySink is a transport of Sentry that goes nowhere.
type sentrySink struct {
	sentry.Transport
	out *buffer
}

func (s sentrySink) Configure(sentry.ClientOptions) {}

func (s sentrySink) SendEvent(e *sentry.Event) {
	b, err := json.Marshal(e)
	if err != nil {
		b = []byte(err.Error())
	}
	fmt.Fprintf(s.out, "%s\n", b)
}

func buildSentry(t *testing.T, _ *adapter.Server) *fixture {
	var out buffer
	client, err := sentry.NewClient(sentry.ClientOptions{
		Dsn: "http://key@sentry.example/1", EnableTracing: true, TracesSampleRate: 1, Transport: sentrySink{out: &out},
	})
	if err != nil {
		t.Fatal(err)
	}
	hub := sentry.NewHub(client, sentry.NewScope())
	return &fixture{
		mw: []gin.HandlerFunc{func(c *gin.Context) {
			// In the place of sentry.Init, which is for the whole process.
			c.Request = c.Request.WithContext(sentry.SetHubOnContext(c.Request.Context(), hub.Clone()))
		}, sentrygin.New(sentrygin.Options{Repanic: true})},
		wrote:  out.String,
		status: regexp.MustCompile(`"http.response.status_code":(\d{3})`),
	}
}

func buildOtel(t *testing.T, _ *adapter.Server) *fixture {
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	t.Cleanup(func() { _ = tracer.Shutdown(t.Context()) })
	return &fixture{
		mw: []gin.HandlerFunc{otelgin.Middleware("chat", otelgin.WithTracerProvider(tracer))},
		wrote: func() string {
			var b strings.Builder
			for _, s := range spans.Ended() {
				fmt.Fprintf(&b, "%s:", s.Name())
				for _, a := range s.Attributes() {
					fmt.Fprintf(&b, " %s=%s", a.Key, a.Value.String())
				}
				b.WriteString("\n")
			}
			return b.String()
		},
		status: regexp.MustCompile(`http.response.status_code=(\d{3})`),
	}
}

// registering guards the registry of the whole process, which is all that
// go-gin-prometheus knows.
var registering sync.Mutex

func buildPrometheus(t *testing.T, _ *adapter.Server) *fixture {
	registry := prometheus.NewRegistry()
	registering.Lock()
	was := prometheus.DefaultRegisterer
	prometheus.DefaultRegisterer = registry
	p := ginprometheus.NewPrometheus("gin")
	prometheus.DefaultRegisterer = was
	registering.Unlock()
	return &fixture{
		mw: []gin.HandlerFunc{p.HandlerFunc()},
		wrote: func() string {
			families, err := registry.Gather()
			if err != nil {
				t.Error(err)
			}
			var b strings.Builder
			for _, f := range families {
				for _, m := range f.GetMetric() {
					fmt.Fprintf(&b, "%s %v\n", f.GetName(), m)
				}
			}
			return b.String()
		},
		status: regexp.MustCompile(`name:"code"\s+value:"(\d{3})"`),
	}
}
